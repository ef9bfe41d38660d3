"""Mistakes that a type checker has to find: an ``ignore`` that is not needed is an error of mypy --strict."""

import starburst


def name_of(number: int) -> str:
    return str(number)


def mistakes(session: starburst.Session, pool: starburst.Executor) -> None:
    starburst.map(5, [1])  # type: ignore[arg-type]
    starburst.map(name_of, 10)  # type: ignore[arg-type]
    starburst.map(name_of, [1], chunksize="big")  # type: ignore[arg-type]
    starburst.map(name_of, [1], on_error="ignore")  # type: ignore[arg-type]
    starburst.map(name_of, [1], resume="always")  # type: ignore[arg-type]
    starburst.map(name_of, [1], progress="no")  # type: ignore[arg-type]
    starburst.starmap(name_of, [1, 2])  # type: ignore[list-item]
    starburst.imap(name_of, None)  # type: ignore[arg-type]
    numbers: list[int] = starburst.map(name_of, [1])  # type: ignore[arg-type]
    number: int = pool.submit(name_of, 1).result()  # type: ignore[assignment]
    pool.submit("f")  # type: ignore[arg-type]
    pool.submit(name_of, "a")  # type: ignore[arg-type]
    pool.submit(name_of)  # type: ignore[call-arg]
    pool.submit(name_of, 1, colour="red")  # type: ignore[call-arg]
    session.map(name_of, [1], timeout=[1])  # type: ignore[arg-type]
    session.collect(on_error="x")  # type: ignore[arg-type]
    session.collect(False)  # type: ignore[call-arg]
    session.extend(None)  # type: ignore[arg-type]
    session.scale("4")  # type: ignore[arg-type]
    session.status().total = 3  # type: ignore[misc]
    starburst.attach(5)  # type: ignore[arg-type]
    starburst.mpa(name_of, [1])  # type: ignore[attr-defined]
    del numbers, number
