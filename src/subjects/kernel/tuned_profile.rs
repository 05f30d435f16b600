//! One tuned profile file: Python's ConfigParser format, with sections that are tuned's units.

/// One option with the line it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    pub value: String,
    /// `/usr/lib/tuned/x/tuned.conf:12`.
    pub at: String,
}

/// One section of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    /// What the plug-in itself is given.
    pub options: Vec<Setting>,
    /// `type`, `enabled`, `replace`, `drop`, `devices`, the two `*_regex`.
    about: Vec<Setting>,
}

/// Options that tuned takes out of a section before the plug-in sees it (`tuned/profiles/unit.py`).
const ABOUT: [&str; 10] = [
    "type",
    "enabled",
    "replace",
    "drop",
    "devices",
    "devices_udev_regex",
    "cpuinfo_regex",
    "uname_regex",
    "script_pre",
    "script_post",
];

impl Unit {
    fn about(&self, key: &str) -> Option<&str> {
        self.about.iter().rfind(|option| option.key == key).map(|option| option.value.as_str())
    }

    /// The plug-in.
    pub fn kind(&self) -> &str {
        self.about("type").unwrap_or(&self.name)
    }

    pub fn is_enabled(&self) -> bool {
        self.about("enabled").is_none_or(is_true)
    }

    /// Whether the section surely does not apply: it asks for another architecture by its plain name.
    pub fn never(&self) -> bool {
        const HERE: &str = std::env::consts::ARCH;
        // Only where Rust's name of the architecture is uname's too.
        ["x86_64", "aarch64"].contains(&HERE)
            && self
                .about("uname_regex")
                .is_some_and(|regex| ["x86_64", "aarch64", "ppc64le", "s390x"].contains(&regex) && regex != HERE)
    }

    /// Whether the section applies everywhere; otherwise why that cannot be determined.
    pub fn condition(&self) -> Result<(), String> {
        match ["uname_regex", "cpuinfo_regex"].into_iter().find(|key| self.about(key).is_some()) {
            Some(key) => Err(format!("tuned applies its section [{}] only where `{key}` matches", self.name)),
            None => Ok(()),
        }
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "True" | "true" | "1")
}

/// Options of a file without sections, such as tuned-main.conf.
pub fn parse_flat(text: &str) -> Vec<Setting> {
    parse(&format!("[main]\n{text}"), "").into_iter().flat_map(|unit| unit.options).collect()
}

/// Reads a profile. Sections of the same name are one; lines that are neither are skipped.
pub fn parse(text: &str, path: &str) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut current: Option<usize> = None;
    // Where an indented line goes on: the last option's place and indentation.
    let mut last: Option<(bool, usize)> = None;
    for (index, raw) in text.lines().enumerate() {
        let line = without_comment(raw);
        let content = line.trim();
        if content.is_empty() {
            continue;
        }
        let unit = current.and_then(|at| units.get_mut(at));
        if let (Some(unit), Some((about, at)), true) = (unit, last, line.starts_with([' ', '\t'])) {
            let list = if about { &mut unit.about } else { &mut unit.options };
            if let Some(option) = list.get_mut(at) {
                option.value.push('\n');
                option.value.push_str(content);
            }
            continue;
        }
        last = None;
        if let Some(name) = content.strip_prefix('[').and_then(|rest| Some(&rest[..rest.rfind(']')?])) {
            current = units.iter().position(|unit| unit.name == name);
            if current.is_none() {
                units.push(Unit { name: name.to_owned(), ..Unit::default() });
                current = Some(units.len() - 1);
            }
        } else if let (Some(unit), Some((key, value))) =
            (current.and_then(|at| units.get_mut(at)), content.split_once('='))
        {
            let (key, value) = (key.trim_end().to_owned(), value.trim().to_owned());
            let about = ABOUT.contains(&key.as_str());
            let list = if about { &mut unit.about } else { &mut unit.options };
            let at = update(list, Setting { key, value, at: format!("{path}:{}", index + 1) });
            last = Some((about, at));
        }
    }
    units
}

/// The line up to a `#` at its start or after a blank; a whole line may also be commented by `;`.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with(['#', ';']) {
        return "";
    }
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

/// Sets an option, in the place it had; returns the place.
fn update(list: &mut Vec<Setting>, option: Setting) -> usize {
    if let Some(at) = list.iter().position(|old| old.key == option.key) {
        list[at] = option;
        return at;
    }
    list.push(option);
    list.len() - 1
}

/// `Merger._merge_two`: the newer profile's options over the older one's, unless a section says `replace`.
pub fn merge(units: &mut Vec<Unit>, newer: Vec<Unit>) {
    for unit in newer {
        let replace = unit.about("replace").is_some_and(is_true);
        match units.iter_mut().find(|old| old.name == unit.name) {
            Some(old) if replace => *old = unit,
            Some(old) => {
                let dropped: Vec<String> =
                    unit.about("drop").unwrap_or_default().split([',', ';']).map(|key| key.trim().to_owned()).collect();
                old.options.retain(|option| !dropped.contains(&option.key));
                // Type and `enabled` are the newer section's, even by default; a regex stays unless it is given again.
                old.about.retain(|option| option.key.ends_with("_regex"));
                for option in unit.about {
                    update(&mut old.about, option);
                }
                for option in unit.options {
                    update(&mut old.options, option);
                }
            }
            None => units.push(unit),
        }
    }
}

/// No setting is longer. Variables that hold variables double at every line; a few dozen lines would fill the memory.
const MAX_EXPANDED_BYTES: usize = 64 * 1024;

/// `[variables]`: names and values, those of included files too.
#[derive(Debug, Default)]
pub struct Variables(Vec<(String, String)>);

impl Variables {
    pub fn of(units: &[Unit], read: &mut dyn FnMut(&str) -> Option<String>) -> Self {
        let mut variables = Self::default();
        for option in units.iter().filter(|unit| unit.name == "variables").flat_map(|unit| &unit.options) {
            if option.key == "include" {
                for included in parse_flat(&read(&option.value).unwrap_or_default()) {
                    variables.add(&included);
                }
            } else {
                variables.add(option);
            }
        }
        variables
    }

    fn add(&mut self, option: &Setting) {
        let value = self.expand(&option.value).unwrap_or_else(|_| option.value.clone());
        self.0.retain(|(name, _)| *name != option.key);
        self.0.push((option.key.clone(), value));
    }

    /// Puts in the variables and takes off the quotes. What is left of `${…}` only tuned itself can tell.
    pub fn expand(&self, value: &str) -> Result<String, String> {
        let mut text = value.to_owned();
        for (name, replacement) in &self.0 {
            text = text.replace(&format!("${{{name}}}"), replacement);
            if text.len() > MAX_EXPANDED_BYTES {
                return Err(format!(
                    "tuned sets it to `{}…`, which is too long",
                    value.chars().take(40).collect::<String>()
                ));
            }
        }
        if text.contains("${") {
            return Err(format!("tuned sets it to `{value}`, which only tuned can tell"));
        }
        let unquoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        Ok(unquoted.unwrap_or(&text).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Seen filling the memory without the bound.
    #[test]
    fn variables_that_double_at_every_line_are_cut_off() {
        let doubled = |n: usize| format!("v{}=${{v{n}}}${{v{n}}}\n", n + 1);
        let lines: String = (0..64).map(doubled).collect();
        let units = parse(&format!("[variables]\nv0=abcdefgh\n{lines}"), "/p");
        let variables = Variables::of(&units, &mut |_| None);
        assert_eq!(variables.expand("${v3}"), Ok("abcdefgh".repeat(8)));
        assert!(variables.expand("${v64}").is_err());
    }

    #[test]
    fn the_format_of_config_parser() {
        let text = "junk=0\n# c\n[main]\nsummary=a # b\n; c\n[sysctl]\nnet.ipv4.tcp_rmem = 4096 87380\n\t16777216\nkey=a#b\nno equals\n[main]\ninclude = x\n";
        let units = parse(text, "/p");
        let shown: Vec<_> = units
            .iter()
            .flat_map(|unit| {
                unit.options.iter().map(|o| (unit.name.as_str(), o.key.as_str(), o.value.as_str(), o.at.as_str()))
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("main", "summary", "a", "/p:4"),
                ("main", "include", "x", "/p:12"),
                ("sysctl", "net.ipv4.tcp_rmem", "4096 87380\n16777216", "/p:7"),
                ("sysctl", "key", "a#b", "/p:9"),
            ]
        );
    }

    #[test]
    fn variables_expand_and_functions_do_not() {
        let units = parse("[variables]\ninclude=/v\nb=${a}0\n", "/p");
        let variables = Variables::of(&units, &mut |path| (path == "/v").then(|| "a=1\n".to_owned()));
        assert_eq!(variables.expand("\"${b}\"").as_deref(), Ok("10"));
        assert!(variables.expand("${c}").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in "[\\[\\]a-c=#;, \\t\\n\"é]{0,60}") {
            let mut units = parse(&text, "/p");
            merge(&mut units, parse(&text, "/q"));
        }
    }
}
