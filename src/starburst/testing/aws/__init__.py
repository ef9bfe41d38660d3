"""An AWS account on this machine, in which ECS really runs things: for tests of code that builds on starburst.

    from starburst.testing.aws import SimulatedAws

    with SimulatedAws() as aws:
        os.environ.update(aws.environment)      # every AWS client of this process and its children uses it now
        ...
        aws.interrupt(aws.tasks()[0].task_id)   # Spot takes it back

Needs the extra ``sim``: moto answers the control plane, SeaweedFS is S3, tasks are processes or podman containers.
"""

from __future__ import annotations

from starburst.testing.aws.handle import SimulatedAws
from starburst.testing.aws.world import HostInfo, SimOptions, TaskInfo

__all__ = ["HostInfo", "SimOptions", "SimulatedAws", "TaskInfo"]
