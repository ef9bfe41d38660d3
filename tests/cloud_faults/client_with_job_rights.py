"""What people who run jobs do, on Fargate and on EC2 hosts of a type that nobody has used yet."""

import sys

import cloud_tasks

import starburst

SMALL = {"cpu": 0.25, "memory": "256MB", "progress": False}

if __name__ == "__main__":
    assert starburst.map(cloud_tasks.slow_square, [2, 3], [0, 0], launch_type="FARGATE", cpu=0.25) == [4, 9]
    for spot in (True, False):
        options = {"launch_type": "EC2", "instance_type": "c6g.xlarge", "spot": spot, **SMALL}
        assert starburst.map(cloud_tasks.slow_square, [2, 3], [0, 0], **options) == [4, 9]
    session = starburst.session(workers=1, launch_type="FARGATE", cpu=0.25)
    session.map(cloud_tasks.slow_square, [2, 3], [0, 0])
    assert session.collect(timeout=60) == [4, 9]
    session.extend("1h")

    session.cleanup()
    sys.stdout.write(session.session_id)
