"""XML of products, without what no product needs and attacks are made of: document types and entities."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from tilestream.sources.files import File
from tilestream.sources.scene import broken, metadata_text


def parse_xml(file: File) -> ET.Element:
    """Return the root of an XML file, its names without their namespaces.

    Parameters
    ----------
    file : File
        XML in UTF-8.

    Returns
    -------
    Element
        The root.

    Raises
    ------
    SourceError
        When it is not well-formed, or declares a document type or entities.
    """
    text = metadata_text(file)
    # Entities are declared in a document type and in nothing else; the text is UTF-8, so that the words cannot hide.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise broken(file, "XML with a document type or entities", "the plain XML of a product")
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:  # ValueError: a declared encoding that does not exist
        raise broken(file, f"XML that is not well-formed ({error})", "whole XML") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
