"""Makes a session, submits a function of two arguments to it, prints the session's id and ends.

FUNCTION N_TASKS SECONDS [OPTION=VALUE …]
"""

import ast
import sys

import cloud_tasks

import starburst

name, n_tasks, seconds, *given = sys.argv[1:]

if __name__ == "__main__":
    options = dict(word.split("=", 1) for word in given)
    session = starburst.session(**{option: ast.literal_eval(value) for option, value in options.items()})
    n = int(n_tasks)
    session.map(getattr(cloud_tasks, name), range(n), [float(seconds)] * n)
    sys.stdout.write(f"{session.session_id}\n")
