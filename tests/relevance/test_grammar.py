import pytest

from tilestream.errors import ConfigError
from tilestream.relevance import Entropy, Gradient, Relevance, TermText, parse_terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("entropy", [("entropy", None, None)]),
        (" entropy , gradient ", [("entropy", None, None), ("gradient", None, None)]),
        ("entropy:0.5,residual:.25", [("entropy", None, 0.5), ("residual", None, 0.25)]),
        ("entropy:1e-2", [("entropy", None, 0.01)]),
        ("entropy:-1", [("entropy", None, -1.0)]),  # refused with the weights
        ('query:"mitoses, atypical": 2,entropy', [("query", "mitoses, atypical", 2.0), ("entropy", None, None)]),
        ("query:'it\\'s':1", [("query", "it's", 1.0)]),
        ("query:nests of tumour", [("query", "nests of tumour", None)]),
        ('query:"12"', [("query", "12", None)]),
        (
            "query:box=0, 16,32,32;-box=9,9,4,4:2,entropy",
            [("query", "box=0, 16,32,32;-box=9,9,4,4", 2.0), ("entropy", None, None)],
        ),
        ("query:12", [("query", None, 12.0)]),
        ('query:"grade:3":4', [("query", "grade:3", 4.0)]),
        ("mask:https://host:8080/a.tif:0.3", [("mask", "https://host:8080/a.tif", 0.3)]),
        (r"mask:C:\a\b.tif", [("mask", r"C:\a\b.tif", None)]),
        (r'mask:"C:\a\b,c.tif"', [("mask", r"C:\a\b,c.tif", None)]),
        ("package.module:name:2", [("package.module", "name", 2.0)]),
    ],
)
def test_text_is_read(text, expected):
    assert parse_terms(text) == tuple(TermText(name=n, argument=a, weight=w) for n, a, w in expected)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a term without a name"),
        ("entropy,", "a term without a name"),
        (":0.5", "a term without a name"),
        ('"entropy"', "quotes around `entropy`"),
        ('query:"a', 'a " without its end'),
        ('query:"a"b', "`b` behind a quote"),
        ("query:", "nothing behind `query:`"),
        ("entropy,gradient,entropy:2", "`entropy` twice"),
    ],
)
def test_text_that_cannot_be_read(text, told):
    with pytest.raises(ConfigError, match=told):
        parse_terms(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("entropy,entrpy", r"\['entropy'.*Did you mean `entropy`"),
        ("entrpy:x", "Did you mean `entropy`"),
        ("Entropy", "Did you mean `entropy`"),
        ("entropy:0.5,1", "`0.5,1` behind it"),
        ("mitoses, atypical", "quotes that the shell leaves"),
        ("entropy:x", "`x` behind it"),
        ("entropy:nan", "`nan` behind it"),
        ("entropy:-1", "at least 0"),
        ("entropy:0", "0 in sum"),
        ("query:x", "Relevance\\(terms=\\{'query': …\\}\\)"),
        ("no.such:name", "No module named 'no'"),
        ("tilestream.relevance:nothing", "no attribute 'nothing'"),
        ("tilestream:nothing", "no attribute `nothing`"),
    ],
)
def test_terms_that_there_are_not(text, told):
    with pytest.raises(ConfigError, match=told):
        Relevance.of(text)


def test_names_become_terms_and_weights():
    found = Relevance.of("entropy,gradient:0.5")
    assert found.terms == {"entropy": Entropy(), "gradient": Gradient()}
    assert found.shares == pytest.approx({"entropy": 2 / 3, "gradient": 1 / 3})
    assert Relevance.of("entropy,gradient").weights is None


def test_callers_make_the_terms_that_they_know():
    asked = []

    def query(argument):
        asked.append(argument)
        return Entropy()

    found = Relevance.of('query:"a":3,query:b,entropy', makers={"query": query})
    assert asked == ["a", "b"]
    assert found.weights == {"query:a": 3.0, "query:b": 1.0, "entropy": 1.0}
    assert list(Relevance.of("query", makers={"query": query}).terms) == ["query"]
    assert asked[-1] is None
    with pytest.raises(ConfigError, match="Did you mean `query`"):
        Relevance.of("quarry:x", makers={"query": query})


def test_functions_and_classes_of_modules_are_terms():
    found = Relevance.of("tilestream.relevance:Entropy:2,tests.relevance.made:glass")
    assert found.terms["tilestream.relevance:Entropy"] == Entropy()
    assert found.terms["tests.relevance.made:glass"].__name__ == "glass"
    assert found.weights == {"tilestream.relevance:Entropy": 2.0, "tests.relevance.made:glass": 1.0}
