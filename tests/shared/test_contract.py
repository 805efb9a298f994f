"""The contract suite of jobs on PostgreSQL and Redis, word for word."""

from tests.contract.test_job_control import *  # noqa: F403
from tests.contract.test_job_results import *  # noqa: F403
from tests.contract.test_jobs import *  # noqa: F403
from tests.contract.test_schedules import *  # noqa: F403
