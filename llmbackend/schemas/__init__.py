"""What travels between client and core: the request and response of every operation.

Requests are strict: an unknown field or a wrong type is refused, never guessed at, on both transports alike.
"""

from .access import *
from .agents import *
from .analysis import *
from .audit import *
from .base import *
from .batches import *
from .chat import *
from .collections import *
from .embeddings import *
from .health import *
from .jobs import *
from .rag import *
from .responses import *
from .usage import *
