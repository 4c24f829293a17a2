"""Views: decode → operation → encode. Nothing here decides anything."""

from gateway.blueprints.docs import blueprint as docs
from gateway.blueprints.execution import blueprint as execution
from gateway.blueprints.operational import blueprint as operational
from gateway.blueprints.operations import blueprint as operations
from gateway.blueprints.results import blueprint as results
from gateway.blueprints.routes import blueprint as routes
from gateway.blueprints.status import blueprint as status
from gateway.blueprints.usage import blueprint as usage

ALL = (routes, execution, usage, results, operations, operational, status, docs)

__all__ = ["ALL"]
