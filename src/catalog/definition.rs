//! Definitions of parameters: name, kind, default, range. A profile declares them; `--set` and `[set]` give values.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;

use super::diagnostic::{Code, Diagnostics, Place, suggest};
use super::parameters::{Port, Protocol, Setting};
use super::predicate;
use super::reader::{Fields, Placed, wrong_type};
use super::tree::{Kind as Tree, Node};
use crate::facts::compare;
use crate::facts::network::{Allowed, DOCKER_NETWORKS};
use crate::facts::{Kind, Value, service};

/// What values a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    One(Kind),
    List(Words),
    Ports,
}

/// What the words of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// Anything.
    Any,
    /// IP addresses.
    Addresses,
    /// Networks, addresses, or `docker:networks`.
    Networks,
    /// Services of systemd.
    Services,
}

impl Words {
    /// Whether a word is one, and why not.
    fn admit(self, word: &str) -> Result<(), String> {
        match self {
            Self::Any => Ok(()),
            Self::Addresses => match word.parse::<IpAddr>() {
                Ok(_) => Ok(()),
                Err(_) => Err(format!("`{word}` is no address such as 127.0.0.1 or ::")),
            },
            Self::Services if service::is_name(word) => Ok(()),
            Self::Services => Err(format!("`{word}` is no name of a service such as redis-server")),
            Self::Networks => word.parse::<Allowed>().map(|_| ()).map_err(|error| {
                let near = suggest(word, [DOCKER_NETWORKS]).map(|near| format!("; did you mean `{near}`?"));
                format!("{error}{}", near.unwrap_or_default())
            }),
        }
    }
}

impl ParameterKind {
    const NAMES: [(&'static str, Self); 10] = [
        ("size", Self::One(Kind::Bytes)),
        ("number", Self::One(Kind::Int)),
        ("text", Self::One(Kind::Text)),
        ("duration", Self::One(Kind::Duration)),
        ("yes/no", Self::One(Kind::Bool)),
        ("list", Self::List(Words::Any)),
        ("addresses", Self::List(Words::Addresses)),
        ("networks", Self::List(Words::Networks)),
        ("services", Self::List(Words::Services)),
        ("ports", Self::Ports),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// One declared parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub name: String,
    pub kind: ParameterKind,
    pub default: Setting,
    pub min: Option<Value>,
    pub max: Option<Value>,
    pub one_of: Vec<String>,
    pub about: String,
    pub place: Place,
}

/// Reads one `[[parameter]]`.
pub fn read(mut fields: Fields<'_>, d: &mut Diagnostics) -> Option<Definition> {
    let name = fields.required_text("name", d);
    let kind = fields.required_text("kind", d);
    let names = ParameterKind::NAMES.map(|(name, _)| name);
    let found = ParameterKind::NAMES.iter().find(|(name, _)| *name == kind.value).map(|(_, kind)| *kind);
    if found.is_none() && !kind.value.is_empty() {
        let near = suggest(&kind.value, names).map(|near| format!("did you mean `{near}`?"));
        d.report(Code::WrongType, kind.place, format!("`{}` is no kind of parameter", kind.value)).hint =
            Some(near.unwrap_or_else(|| format!("one of {}", names.join(", "))));
    }
    let about = fields.required_text("about", d).value;
    let default = fields.take("default");
    let (min, max) = (fields.take("min"), fields.take("max"));
    let one_of = fields.texts("one_of", d).unwrap_or_default().into_iter().map(|text| text.value).collect();
    let source = fields.source();
    fields.finish(d);
    let kind = found?;
    let Some(default) = default else {
        d.report(Code::MissingKey, name.place, format!("parameter `{}` has no `default`", name.value));
        return None;
    };
    let bound = |value: Option<&Node>, d: &mut Diagnostics| {
        let value = value?;
        let place = Place { source, span: value.span.clone() };
        match kind {
            ParameterKind::One(kind) => predicate::literal(value, kind, &place, d),
            ParameterKind::List(_) | ParameterKind::Ports => {
                d.report(Code::WrongType, place, "a list has no range");
                None
            }
        }
    };
    let (min, max) = (bound(min, d), bound(max, d));
    let default_place = Place { source, span: default.span.clone() };
    let setting = setting(default, kind, source, d)?;
    let definition =
        Definition { name: name.value, kind, default: setting, min, max, one_of, about, place: name.place };
    if let Err(message) = definition.admit(&definition.default) {
        d.report(Code::OutOfRange, default_place, message);
    }
    Some(definition)
}

/// Reads a value written in TOML.
pub fn setting(value: &Node, kind: ParameterKind, source: usize, d: &mut Diagnostics) -> Option<Setting> {
    let place = Place { source, span: value.span.clone() };
    match kind {
        ParameterKind::One(kind) => predicate::literal(value, kind, &place, d).map(Setting::One),
        ParameterKind::List(kind) => {
            let Some(items) = value.as_array() else {
                wrong_type(d, place, "default", "a list of texts", value);
                return None;
            };
            let mut words = Vec::new();
            for item in items {
                match item.as_text() {
                    Some(word) if words.iter().any(|known| known == word) => {
                        let place = Place { source, span: item.span.clone() };
                        d.report(Code::DuplicateId, place, format!("`{word}` is listed twice"));
                    }
                    Some(word) => match kind.admit(word) {
                        Ok(()) => words.push(word.to_owned()),
                        Err(message) => {
                            d.report(Code::WrongType, Place { source, span: item.span.clone() }, message);
                        }
                    },
                    None => wrong_type(d, Place { source, span: item.span.clone() }, "list", "text in quotes", item),
                }
            }
            Some(Setting::List(words))
        }
        ParameterKind::Ports => {
            let Some(items) = value.as_array() else {
                wrong_type(d, place, "ports", "a list such as `[{ name = \"redis\", port = \"6379-6381\" }]`", value);
                return None;
            };
            let mut ports: Vec<Port> = Vec::new();
            let mut known = HashSet::new();
            for item in items {
                let Some(fields) = Fields::of(item, "port", source, d) else { continue };
                let place = fields.place.clone();
                // Said once for an entry, however many ports it has.
                let mut twice = None;
                for port in read_port(fields, d) {
                    if known.insert((port.port, port.protocol)) {
                        ports.push(port);
                    } else {
                        twice.get_or_insert(port);
                    }
                }
                if let Some(port) = twice {
                    let message = format!("port {}/{} is listed twice", port.port, port.protocol.name());
                    d.report(Code::DuplicateId, place, message);
                }
            }
            Some(Setting::Ports(ports))
        }
    }
}

/// `{ name = "redis", port = 6379 }` or `{ name = "redis", port = "6379-6381", proto = "tcp", publish = true }`.
fn read_port(mut fields: Fields<'_>, d: &mut Diagnostics) -> Vec<Port> {
    let name = fields.required_text("name", d).value;
    let source = fields.source();
    let written = fields.take("port").map(|value| {
        let text = match &value.kind {
            Tree::Integer(Some(number)) => number.to_string(),
            Tree::Text(text) => text.clone(),
            _ => String::new(),
        };
        Placed { value: text, place: Place { source, span: value.span.clone() } }
    });
    let protocol = match fields.text("proto", d) {
        None => Protocol::Tcp,
        Some(word) => match word.value.as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => {
                d.report(Code::WrongType, word.place, format!("`proto` is tcp or udp, not `{other}`"));
                Protocol::Tcp
            }
        },
    };
    let publish = fields.flag("publish", d).unwrap_or(true);
    let place = fields.place.clone();
    fields.finish(d);
    let Some(written) = written else {
        d.report(Code::MissingKey, place, "this port has no `port`");
        return Vec::new();
    };
    match parse_port_range(&written.value) {
        Ok((first, last)) => (first..=last).map(|port| Port { name: name.clone(), port, protocol, publish }).collect(),
        Err(message) => {
            d.report(Code::BadPort, written.place, message);
            Vec::new()
        }
    }
}

/// Findings are named by the elements of a list, so none may be there twice.
fn first_repeated<T: Eq + Hash>(list: &[T]) -> Option<&T> {
    let mut known = HashSet::new();
    list.iter().find(|element| !known.insert(*element))
}

/// `6379` or `6379-6381`.
pub fn parse_port_range(text: &str) -> Result<(u16, u16), String> {
    let parse = |text: &str| match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{}` is no port: expected 1 to 65535", text.trim())),
    };
    match text.split_once('-') {
        None => parse(text).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (parse(first)?, parse(last)?);
            if first > last { Err(format!("no port lies between {first} and {last}")) } else { Ok((first, last)) }
        }
    }
}

impl Definition {
    /// Whether a value is in the declared range; the message says what is.
    pub fn admit(&self, setting: &Setting) -> Result<(), String> {
        let Setting::One(value) = setting else { return Ok(()) };
        let below = |low: &Value| compare::order(value, low) == Some(std::cmp::Ordering::Less);
        let above = |high: &Value| compare::order(value, high) == Some(std::cmp::Ordering::Greater);
        if let Some(low) = self.min.as_ref().filter(|low| below(low)) {
            return Err(format!("{} = {value} is too little: at least {low}", self.name));
        }
        if let Some(high) = self.max.as_ref().filter(|high| above(high)) {
            return Err(format!("{} = {value} is too much: at most {high}", self.name));
        }
        if !self.one_of.is_empty() && !self.one_of.contains(&value.to_string()) {
            return Err(format!("{} = {value} is not one of {}", self.name, self.one_of.join(", ")));
        }
        Ok(())
    }

    /// Reads the text of `--set name=value`. Lists are separated by commas; ports are `name:6379-6381/tcp` or `6379`.
    pub fn parse(&self, text: &str) -> Result<Setting, String> {
        let setting = match self.kind {
            ParameterKind::One(kind) => {
                Setting::One(kind.parse(text).map_err(|message| format!("{}: {message}", self.name))?)
            }
            ParameterKind::List(kind) => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                let words: Vec<String> = words.map(Into::into).collect();
                if let Some(twice) = first_repeated(&words) {
                    return Err(format!("{}: `{twice}` is listed twice", self.name));
                }
                for word in &words {
                    kind.admit(word).map_err(|message| format!("{}: {message}", self.name))?;
                }
                Setting::List(words)
            }
            ParameterKind::Ports => {
                let mut ports = Vec::new();
                let mut known = HashSet::new();
                for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                    let (name, rest) = word.split_once(':').unwrap_or(("port", word));
                    let (range, protocol) = match rest.split_once('/') {
                        None | Some((_, "tcp")) => (rest.split('/').next().unwrap_or(rest), Protocol::Tcp),
                        Some((range, "udp")) => (range, Protocol::Udp),
                        Some((_, other)) => return Err(format!("{}: `{other}` is neither tcp nor udp", self.name)),
                    };
                    let (first, last) =
                        parse_port_range(range).map_err(|message| format!("{}: {message}", self.name))?;
                    for port in first..=last {
                        if !known.insert((port, protocol)) {
                            return Err(format!("{}: port {port}/{} is listed twice", self.name, protocol.name()));
                        }
                        ports.push(Port { name: name.to_owned(), port, protocol, publish: true });
                    }
                }
                // `--set ports=$PORTS` with the variable unset: no port would be looked at, and none be in the way.
                if ports.is_empty() {
                    return Err(format!("{}: expected at least one port, such as redis:6379", self.name));
                }
                Setting::Ports(ports)
            }
        };
        self.admit(&setting)?;
        Ok(setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen failing with `Words::admit` taking any word.
    #[test]
    fn the_words_of_a_list_are_of_its_kind() {
        for (kind, good, bad, told) in [
            (Words::Addresses, &["127.0.0.1", "::"][..], "localhost", "no address such as"),
            (Words::Networks, &["10.0.0.0/8", "fd00::/8", "::1", "docker:networks"], "10.0.0.1/8", "10.0.0.0/8"),
            (Words::Networks, &[], "docker:network", "did you mean `docker:networks`?"),
            (Words::Services, &["redis-server", "redis@6380.service"], "../x", "no name of a service"),
            (Words::Any, &["../x"], "", ""),
        ] {
            for word in good {
                assert_eq!(kind.admit(word), Ok(()), "{word}");
            }
            match kind.admit(bad) {
                Ok(()) => assert_eq!(kind, Words::Any, "{bad}"),
                Err(message) => assert!(message.contains(told) && message.contains(bad), "{message}"),
            }
        }
    }

    #[test]
    fn ports_and_ranges() {
        assert_eq!(parse_port_range("6379"), Ok((6379, 6379)));
        assert_eq!(parse_port_range("6379-6381"), Ok((6379, 6381)));
        for text in ["0", "70000", "6381-6379", "-1", "6379-", "", "a", "6379-6381-1"] {
            assert!(parse_port_range(text).is_err(), "{text}");
        }
    }
}
