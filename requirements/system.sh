#!/bin/sh
# Makes sure that the programs are there that tests in real containers need; says which packages are missing.
set -eu
PATH=$PATH:/usr/sbin:/sbin # where Debian has runc, and users do not look

missing=
need() { # PACKAGE PROGRAM [PATH]: a path, since podman looks in places of its own, too
    command -v "$2" >/dev/null 2>&1 || { [ $# -gt 2 ] && [ -x "$3" ]; } || missing="$missing $1"
}
need podman podman
need runc runc
need catatonit catatonit /usr/libexec/podman/catatonit
need docker-registry docker-registry
need buildah buildah
[ "$(id -u)" = 0 ] || need uidmap newuidmap # several users in the containers of one who is not root
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root="sudo -n"
fi
if ! command -v apt-get >/dev/null || { [ -n "$as_root" ] && ! $as_root true 2>/dev/null; }; then
    echo "The tests run containers from an image registry. These packages are missing:$missing" >&2
    echo "Install them, then run make again (Debian, Ubuntu): sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

echo "installing$missing with apt-get"
install() {
    # shellcheck disable=SC2086 # several words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}
if ! install >/dev/null 2>&1; then
    $as_root apt-get update -qq
    install >/dev/null
fi
case $missing in
*docker-registry*)
    # Debian starts it as a service of the machine; the tests start one of their own.
    if [ -d /run/systemd/system ]; then
        $as_root systemctl disable --quiet --now docker-registry.service || true
    fi
    ;;
esac
