"""What tests of images share: folders that look as if uv had filled them, and what is in a layer."""

import base64
import csv
import gzip
import hashlib
import io
import tarfile

import zstandard


def add_distribution(folder, name, version, files):
    """Install made-up files with a RECORD, as an installer does."""
    about = f"{name}-{version}.dist-info"
    files = {**files, f"{about}/METADATA": f"Name: {name}\nVersion: {version}\n".encode()}
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow([path, f"sha256={digest}", len(data)])
    rows.writerow([f"{about}/RECORD", "", ""])
    (folder / about / "RECORD").write_text(record.getvalue())


def small_environment(folder):
    """A few files of two distributions."""
    folder.mkdir(parents=True, exist_ok=True)
    add_distribution(
        folder, "alpha", "1.0", {"alpha/__init__.py": b"VALUE = 41 + 1\n", "alpha/data.txt": b"x" * 999}
    )
    add_distribution(folder, "beta", "2.0", {"beta.py": b"import alpha\nVALUE = alpha.VALUE\n"})
    return folder


def unpacked(layer):
    """The uncompressed archive of a layer."""
    data = layer.path.read_bytes()
    if layer.media_type.endswith("+gzip"):
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def members(layer):
    """What is in a layer, by name."""
    with tarfile.open(fileobj=io.BytesIO(unpacked(layer))) as tar:
        return {info.name: (info, tar.extractfile(info).read() if info.isreg() else None) for info in tar}
