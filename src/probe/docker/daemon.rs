//! What dockerd was told: daemon.json and its command line. dockerd refuses to start when one option is in both, so
//! there is nothing to rank.

use std::path::PathBuf;

use serde::Deserialize;
use std::collections::BTreeMap;

use super::endpoint::not_understood;

/// Where dockerd looks without `--config-file`.
pub const DEFAULT_FILE: &str = "/etc/docker/daemon.json";

/// The settings that the facts need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Daemon {
    /// `log-opts max-size`, as written: `10m`, `-1` for no limit.
    pub log_max_size: Option<String>,
    /// The hard nofile limit of `default-ulimits`.
    pub nofile_hard: Option<i64>,
    /// `iptables`; dockerd's default is true.
    pub iptables: Option<bool>,
    /// `--config-file` of the command line.
    pub config_file: Option<PathBuf>,
    /// The socket of the containerd to use; without one dockerd looks for the system's or starts its own.
    pub containerd: Option<String>,
}

impl Daemon {
    /// Whether json-file logs are bounded by a `max-size`.
    pub fn logs_are_bounded(&self) -> bool {
        // "A positive integer plus a modifier"; -1, the default, is unlimited.
        self.log_max_size.as_ref().is_some_and(|size| size.starts_with(|c: char| c.is_ascii_digit()))
    }

    /// Both sources together; the command line is asked first.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        Self {
            log_max_size: self.log_max_size.or(file.log_max_size),
            nofile_hard: self.nofile_hard.or(file.nofile_hard),
            iptables: self.iptables.or(file.iptables),
            config_file: self.config_file,
            containerd: self.containerd.or(file.containerd),
        }
    }
}

/// Reads a daemon.json. An empty file is an empty object to dockerd (moby `daemon/config/config.go`).
pub fn parse(json: &str) -> Result<Daemon, String> {
    #[derive(Deserialize, Default)]
    struct File {
        #[serde(rename = "log-opts", default)]
        log_opts: BTreeMap<String, serde_json::Value>,
        #[serde(rename = "default-ulimits", default)]
        default_ulimits: BTreeMap<String, Ulimit>,
        #[serde(default)]
        iptables: Option<bool>,
        #[serde(default)]
        containerd: Option<String>,
    }
    #[derive(Deserialize)]
    struct Ulimit {
        #[serde(rename = "Hard", alias = "hard")]
        hard: Option<i64>,
    }
    if json.trim().is_empty() {
        return Ok(Daemon::default());
    }
    let file: File = serde_json::from_str(json).map_err(|error| not_understood(&error))?;
    let log_max_size = file.log_opts.get("max-size").map(|size| match size {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    Ok(Daemon {
        log_max_size,
        nofile_hard: file.default_ulimits.get("nofile").and_then(|limit| limit.hard),
        iptables: file.iptables,
        config_file: None,
        containerd: file.containerd,
    })
}

/// Reads `/proc/PID/cmdline` of dockerd. Options may be `--name value` or `--name=value`; a switch stands alone.
pub fn parse_command_line(cmdline: &str) -> Daemon {
    let mut words = cmdline.split('\0').skip(1).peekable();
    let mut daemon = Daemon::default();
    while let Some(word) = words.next() {
        let (name, mut value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let takes_value = matches!(name, "--log-opt" | "--default-ulimit" | "--config-file" | "--containerd");
        if takes_value && value.is_none() {
            value = words.next();
        }
        match (name, value) {
            ("--log-opt", Some(option)) => {
                if let Some(size) = option.strip_prefix("max-size=") {
                    daemon.log_max_size = Some(size.to_owned());
                }
            }
            // `nofile=SOFT[:HARD]`; without HARD the soft limit is both.
            ("--default-ulimit", Some(option)) => {
                if let Some(limit) = option.strip_prefix("nofile=") {
                    daemon.nofile_hard = limit.rsplit(':').next().and_then(|hard| hard.parse().ok());
                }
            }
            ("--config-file", Some(path)) => daemon.config_file = Some(path.into()),
            ("--containerd", Some(socket)) => daemon.containerd = Some(socket.to_owned()),
            ("--iptables", value) => {
                daemon.iptables = Some(!matches!(value, Some("false" | "0" | "f" | "F" | "FALSE")));
            }
            _ => {}
        }
    }
    daemon
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_matters_is_read_and_the_rest_ignored() {
        let daemon = parse(
            r#"{"log-driver":"json-file","log-opts":{"max-size":"10m","max-file":"3"},"iptables":false,
                "default-ulimits":{"nofile":{"Name":"nofile","Hard":64000,"Soft":1024}},"experimental":true}"#,
        )
        .unwrap();
        assert_eq!(daemon.nofile_hard, Some(64_000));
        assert_eq!(daemon.iptables, Some(false));
        assert!(daemon.logs_are_bounded());
        assert_eq!(parse(" \n").unwrap(), Daemon::default());
        assert!(!parse(r#"{"log-opts":{"max-size":"-1"}}"#).unwrap().logs_are_bounded());
        assert!(!parse(r#"{"log-opts":{"max-file":"3"}}"#).unwrap().logs_are_bounded());
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place() {
        assert_eq!(parse("{\n\"iptables\": \"no\"}").unwrap_err(), "has an unexpected value at line 2 column 16");
        assert_eq!(parse("{,}").unwrap_err(), "is not valid JSON at line 1 column 2");
    }

    #[test]
    fn the_command_line_counts_in_both_spellings() {
        let line = "dockerd\0--log-opt\0max-size=5m\0--default-ulimit=nofile=1024:4096\0--iptables=false\0--config-file\0/x.json";
        let daemon = parse_command_line(line);
        assert_eq!(daemon.log_max_size.as_deref(), Some("5m"));
        assert_eq!((daemon.nofile_hard, daemon.iptables), (Some(4096), Some(false)));
        assert_eq!(daemon.config_file.as_deref(), Some(std::path::Path::new("/x.json")));
        assert_eq!(parse_command_line("dockerd\0--default-ulimit\0nofile=512").nofile_hard, Some(512));
        assert_eq!(parse_command_line("dockerd\0--iptables\0-H\0fd://").iptables, Some(true));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,80}", words in proptest::collection::vec("(--[a-z-]{0,12}=?)?\\PC{0,10}", 0..8)) {
            let _ = parse(&text);
            let _ = parse_command_line(&words.join("\0"));
        }
    }
}
