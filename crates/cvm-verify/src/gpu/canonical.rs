//! Canonical XML 1.1 without comments (W3C, 2008), as far as NVIDIA's manifests need it.
//!
//! Everything else is refused: processing instructions, comments, `xml:`
//! attributes, empty namespaces, a document type. roxmltree does the parsing: line ends, references
//! and attribute values are normalised there, entities other than the predefined five do not exist
//! without a document type.

use std::collections::BTreeMap;

use roxmltree::{Document, Node, ParsingOptions};

/// Manifests have some 20 KiB; longer ones are refused unread.
pub(super) const MAX_XML_BYTES: usize = 256 * 1024;
/// Manifests have some 250 nodes.
const MAX_NODES: u32 = 4096;
/// Manifests are 5 deep.
const MAX_DEPTH: usize = 16;

/// Why XML was refused.
pub(super) type Problem = String;

/// Reads a document that has nothing but elements, attributes and text.
pub(super) fn read(bytes: &[u8]) -> Result<Document<'_>, Problem> {
    if bytes.len() > MAX_XML_BYTES {
        return Err(format!("{} bytes, at most {MAX_XML_BYTES} allowed", bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    if text.starts_with('\u{feff}') {
        return Err("starts with a byte order mark".into());
    }
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|e| e.to_string())?;
    for node in document.root().descendants() {
        if node.is_pi() || node.is_comment() {
            return Err("has a comment or a processing instruction".into());
        }
        if node.ancestors().nth(MAX_DEPTH).is_some() {
            return Err(format!("is nested deeper than {MAX_DEPTH}"));
        }
        for attribute in node.attributes() {
            if attribute.namespace() == Some(roxmltree::NS_XML_URI) {
                return Err(format!("has an attribute xml:{}", attribute.name()));
            }
        }
        if node.is_element() && node.namespaces().any(|namespace| namespace.uri().is_empty()) {
            return Err("undeclares a namespace".into());
        }
    }
    Ok(document)
}

/// The canonical form of an element and what is in it, but for one element.
pub(super) fn canonicalize(
    element: Node<'_, '_>,
    without: Option<Node<'_, '_>>,
) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(element.range().len() + 1024);
    write(element, without, &BTreeMap::new(), &mut out)?;
    Ok(out)
}

/// `rendered`: the namespaces that the output's ancestors already declare.
fn write<'a>(
    element: Node<'a, '_>,
    without: Option<Node<'_, '_>>,
    rendered: &BTreeMap<&'a str, &'a str>,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    let source = element.document().input_text();
    let name = source
        .get(element.range())
        .and_then(|text| text.strip_prefix('<'))
        .and_then(|text| {
            text.split(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>').next()
        })
        .ok_or("an element without a name")?;
    out.extend([b"<", name.as_bytes()].concat());

    // C14N 1.0 §2.2, namespace axis: by prefix, the default one first, none twice.
    let mut rendered = rendered.clone();
    let mut declared: Vec<(&str, &str)> = element
        .namespaces()
        .map(|namespace| (namespace.name().unwrap_or_default(), namespace.uri()))
        .collect();
    declared.retain(|(prefix, uri)| *prefix != "xml" && rendered.get(prefix) != Some(uri));
    declared.sort_unstable();
    for (prefix, uri) in declared {
        out.extend(if prefix.is_empty() {
            b" xmlns".to_vec()
        } else {
            [b" xmlns:", prefix.as_bytes()].concat()
        });
        write_value(uri, out);
        rendered.insert(prefix, uri);
    }

    // Attribute axis: by namespace, then by local name; those without a namespace first.
    let mut attributes: Vec<_> = element.attributes().collect();
    attributes.sort_unstable_by_key(|attribute| {
        (attribute.namespace().unwrap_or_default(), attribute.name())
    });
    for attribute in attributes {
        let name = source.get(attribute.range_qname()).ok_or("an attribute without a name")?;
        out.extend([b" ", name.as_bytes()].concat());
        write_value(attribute.value(), out);
    }
    out.push(b'>');

    for child in element.children().filter(|child| Some(*child) != without) {
        match child.text().filter(|_| child.is_text()) {
            Some(text) => write_escaped(
                text,
                &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('\r', "&#xD;")],
                out,
            ),
            None => write(child, without, &rendered, out)?,
        }
    }
    out.extend([b"</", name.as_bytes(), b">"].concat());
    Ok(())
}

fn write_value(value: &str, out: &mut Vec<u8>) {
    const ESCAPES: &[(char, &str)] = &[
        ('&', "&amp;"),
        ('<', "&lt;"),
        ('"', "&quot;"),
        ('\t', "&#x9;"),
        ('\n', "&#xA;"),
        ('\r', "&#xD;"),
    ];
    out.extend(b"=\"");
    write_escaped(value, ESCAPES, out);
    out.push(b'"');
}

fn write_escaped(text: &str, escapes: &[(char, &str)], out: &mut Vec<u8>) {
    let mut buffer = [0; 4];
    for c in text.chars() {
        match escapes.iter().find(|(escaped, _)| *escaped == c) {
            Some((_, escape)) => out.extend(escape.as_bytes()),
            None => out.extend(c.encode_utf8(&mut buffer).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(xml: &str) -> String {
        let document = read(xml.as_bytes()).unwrap();
        String::from_utf8(canonicalize(document.root_element(), None).unwrap()).unwrap()
    }

    #[test]
    fn whitespace_quotes_and_references_have_one_form() {
        // C14N 1.0 §3.3 and §3.4 (start and end tags, character modifications), without their ID
        // attributes.
        for (given, expected) in [
            ("<e1   />", "<e1></e1>"),
            ("<e3   name = \"elem3\"   id=\"elem3\"   />", "<e3 id=\"elem3\" name=\"elem3\"></e3>"),
            (
                "<e5 a:attr=\"out\" b:attr=\"sorted\" attr2=\"all\" attr=\"I'm\" \
                 xmlns:b=\"http://www.ietf.org\" xmlns:a=\"http://www.w3.org\" \
                 xmlns=\"http://example.org\"/>",
                "<e5 xmlns=\"http://example.org\" xmlns:a=\"http://www.w3.org\" \
                 xmlns:b=\"http://www.ietf.org\" attr=\"I'm\" attr2=\"all\" b:attr=\"sorted\" \
                 a:attr=\"out\"></e5>",
            ),
            (
                "<text>First line&#x0d;&#10;Second line</text>",
                "<text>First line&#xD;\nSecond line</text>",
            ),
            ("<v><![CDATA[v>\"0\" && v<\"10\"]]></v>", "<v>v&gt;\"0\" &amp;&amp; v&lt;\"10\"</v>"),
            (
                "<n a=' &apos;   &#x20;&#13;&#xa;&#9;   &apos; '/>",
                "<n a=\" '    &#xD;&#xA;&#x9;   ' \"></n>",
            ),
            ("<n a='x\ny\tz\r\nw'/>", "<n a=\"x y z w\"></n>"),
            ("<?xml version=\"1.0\"?>\n<a>\r\n <b/>\r</a>\n", "<a>\n <b></b>\n</a>"),
            (
                "<a xmlns=\"u\" xmlns:p=\"v\"><b xmlns=\"u\"><p:c xmlns:p=\"w\"/></b></a>",
                "<a xmlns=\"u\" xmlns:p=\"v\"><b><p:c xmlns:p=\"w\"></p:c></b></a>",
            ),
        ] {
            assert_eq!(canonical(given), expected);
        }
    }

    #[test]
    fn a_part_takes_the_namespaces_around_it_along() {
        let document = read(b"<a xmlns=\"u\" xmlns:p=\"v\"><p:b x='1'/><c/></a>").unwrap();
        let [b, c] = [0, 1].map(|at| document.root_element().children().nth(at).unwrap());
        let part = |node, without| String::from_utf8(canonicalize(node, without).unwrap()).unwrap();
        assert_eq!(part(b, None), "<p:b xmlns=\"u\" xmlns:p=\"v\" x=\"1\"></p:b>");
        assert_eq!(
            part(document.root_element(), Some(c)),
            "<a xmlns=\"u\" xmlns:p=\"v\"><p:b x=\"1\"></p:b></a>"
        );
    }

    #[test]
    fn attack_bombs_entities_and_nesting_are_refused() {
        let laughs = "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]><l>&b;</l>";
        let external = "<!DOCTYPE l [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><l>&a;</l>";
        let nested = "<a>".repeat(60_000);
        let closed = format!("{}{}", "<a>".repeat(30_000), "</a>".repeat(30_000));
        let wide = format!("<a>{}</a>", "<b/>".repeat(10_000));
        let long = format!("<a>{}</a>", " ".repeat(MAX_XML_BYTES));
        for bad in [
            laughs,
            external,
            &nested,
            &closed,
            &wide,
            &long,
            "<a>&b;</a>",
            "<a><!-- c --></a>",
            "<a><?pi?></a>",
            "<a/><!-- c -->",
            "<a xml:id=\"x\"/>",
            "<a xml:space=\"preserve\"/>",
            "<a xmlns=\"u\"><b xmlns=\"\"/></a>",
            "\u{feff}<a/>",
            "",
            "<a>",
            "<a/><a/>",
            "<a b=\"1\" b=\"2\"/>",
            "<p:a/>",
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{}", bad.chars().take(60).collect::<String>());
        }
        assert!(read(b"<a>\xff</a>").is_err());
        assert!(read(format!("{}{}", "<a>".repeat(12), "</a>".repeat(12)).as_bytes()).is_ok());
    }
}
