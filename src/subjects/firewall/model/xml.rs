//! As much of XML as firewalld's files use: tags with attributes. Text between tags means nothing there.

/// One tag, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag<'a> {
    Open { name: &'a str, attributes: Vec<(&'a str, String)> },
    Close { name: &'a str },
}

impl Tag<'_> {
    /// An attribute of an opening tag.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match self {
            Self::Open { attributes, .. } => {
                attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
            }
            Self::Close { .. } => None,
        }
    }
}

/// The tags of a document; an empty one opens and closes. `None` where it is not well enough formed to be sure.
pub fn tags(text: &str) -> Option<Vec<Tag<'_>>> {
    let mut found = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix("!--") {
            rest = after.split_once("-->")?.1;
        } else if rest.starts_with(['?', '!']) {
            rest = rest.split_once('>')?.1;
        } else if let Some(after) = rest.strip_prefix('/') {
            let (name, after) = after.split_once('>')?;
            let name = name.trim_end();
            if open.pop() != Some(name) {
                return None;
            }
            found.push(Tag::Close { name });
            rest = after;
        } else {
            let (tag, is_empty, after) = opening(rest)?;
            let Tag::Open { name, .. } = tag else { return None };
            found.push(tag);
            if is_empty {
                found.push(Tag::Close { name });
            } else {
                open.push(name);
            }
            rest = after;
        }
    }
    (open.is_empty() && !found.is_empty()).then_some(found)
}

/// `name a="1" b='2'/>` and what follows it.
fn opening(text: &str) -> Option<(Tag<'_>, bool, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    let split = |text: &'_ str| text.find(|c| !is_name(c)).filter(|at| *at > 0);
    let (name, mut rest) = text.split_at(split(text)?);
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('>') {
            return Some((Tag::Open { name, attributes }, false, after));
        }
        if let Some(after) = rest.strip_prefix("/>") {
            return Some((Tag::Open { name, attributes }, true, after));
        }
        let (key, after) = rest.split_at(split(rest)?);
        let after = after.trim_start().strip_prefix('=')?.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, after) = after[1..].split_once(quote)?;
        attributes.push((key, unescape(value)));
        rest = after;
    }
}

fn unescape(value: &str) -> String {
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    pairs.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags_and_attributes_are_read() {
        let text = "<?xml version=\"1.0\"?>\n<!-- <zone> -->\n<zone target='ACCEPT'>\n  <short>A &lt; B</short>\n  <port port=\"1\" protocol = \"tcp\" />\n</zone>\n";
        let tags = tags(text).unwrap();
        assert_eq!(tags.len(), 6);
        assert_eq!(tags[0].attribute("target"), Some("ACCEPT"));
        assert_eq!((tags[3].attribute("port"), tags[3].attribute("protocol")), (Some("1"), Some("tcp")));
        assert_eq!(tags[5], Tag::Close { name: "zone" });
        assert_eq!(unescape("&amp;lt;"), "&lt;");
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for text in ["", "text", "<a>", "<a></b>", "<a b=1/>", "<a b=\"1/>", "<!-- <a/>", "</a>", "<a", "< a/>", "<a/"]
        {
            assert_eq!(tags(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(<[a-z/!?-]{0,6}|[ =\"'>/]|[a-z]{1,4}|\\PC){0,40}") {
            let _ = tags(&text);
        }
    }
}
