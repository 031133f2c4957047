"""Which parts of an image matter, judged from a coarse look at it."""

from tilestream.relevance.gradient import Gradient as Gradient
from tilestream.relevance.grammar import TermText as TermText
from tilestream.relevance.grammar import parse_terms as parse_terms
from tilestream.relevance.information import Entropy as Entropy
from tilestream.relevance.itti import CentreSurround as CentreSurround
from tilestream.relevance.look import Look as Look
from tilestream.relevance.mask import MaskTerm as MaskTerm
from tilestream.relevance.regrid import regrid as regrid
from tilestream.relevance.relevance import Relevance as Relevance
from tilestream.relevance.residual import SpectralResidual as SpectralResidual
from tilestream.relevance.term import CoarseTerm as CoarseTerm
from tilestream.relevance.term import Term as Term
from tilestream.relevance.term import term_recipe as term_recipe

__all__ = [
    "CentreSurround",
    "CoarseTerm",
    "Entropy",
    "Gradient",
    "Look",
    "MaskTerm",
    "Relevance",
    "SpectralResidual",
    "Term",
    "TermText",
    "parse_terms",
    "regrid",
    "term_recipe",
]
