from .data.cutout import Cutout as Cutout
from .data.cutout import open_cutout as open_cutout
from .data.datasets import load_dataset as load_dataset
from .data.sample import Sample as Sample
from .features.embed import Encoder as Encoder
from .models.flow import FlowEnsemble as FlowEnsemble
from .tasks.generate import generate as generate
from .tasks.inspect import Inspection as Inspection
from .tasks.inspect import inspect as inspect
from .tasks.search import SearchIndex as SearchIndex

__version__: str
