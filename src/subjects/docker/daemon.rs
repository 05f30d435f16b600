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
    /// `hosts`: where it listens, as written.
    pub hosts: Vec<String>,
    /// `tlsverify`: only clients with a certificate are let in.
    pub tlsverify: Option<bool>,
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

    /// The TCP addresses on which anybody who reaches them is let in. A host without a scheme is TCP (moby `opts/hosts.go`).
    pub fn open_hosts(&self) -> impl Iterator<Item = &str> {
        let is_local = |host: &str| ["unix:", "fd:", "npipe:"].iter().any(|scheme| host.starts_with(scheme));
        let guarded = self.tlsverify == Some(true);
        self.hosts.iter().map(String::as_str).filter(move |host| !guarded && !is_local(host))
    }

    /// Both sources together; the command line is asked first.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        Self {
            log_max_size: self.log_max_size.or(file.log_max_size),
            nofile_hard: self.nofile_hard.or(file.nofile_hard),
            iptables: self.iptables.or(file.iptables),
            hosts: if self.hosts.is_empty() { file.hosts } else { self.hosts },
            tlsverify: self.tlsverify.or(file.tlsverify),
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
        hosts: Vec<String>,
        #[serde(default)]
        tlsverify: Option<bool>,
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
        hosts: file.hosts,
        tlsverify: file.tlsverify,
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
        let takes_value =
            matches!(name, "--log-opt" | "--default-ulimit" | "--config-file" | "--containerd" | "-H" | "--host");
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
            ("-H" | "--host", Some(host)) => daemon.hosts.push(host.to_owned()),
            ("--iptables", value) => daemon.iptables = Some(switch(value)),
            ("--tlsverify", value) => daemon.tlsverify = Some(switch(value)),
            _ => daemon.hosts.extend(word.strip_prefix("-H").filter(|host| !host.is_empty()).map(str::to_owned)),
        }
    }
    daemon
}

/// A switch that is named is on, unless it says otherwise (strconv.ParseBool).
fn switch(value: Option<&str>) -> bool {
    !matches!(value, Some("false" | "False" | "FALSE" | "0" | "f" | "F"))
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

    /// Seen failing with TCP known by its scheme alone, and with `tlsverify` of any value taken for a guard.
    #[test]
    fn addresses_that_let_anybody_in_are_told() {
        let open = |daemon: &Daemon| daemon.open_hosts().map(str::to_owned).collect::<Vec<_>>();
        let file = |json: &str| open(&parse(json).unwrap());
        assert_eq!(file(r#"{"hosts": ["unix:///run/docker.sock", "tcp://0.0.0.0:2375"]}"#), ["tcp://0.0.0.0:2375"]);
        assert_eq!(file(r#"{"hosts": ["0.0.0.0:2376"], "tls": true}"#), ["0.0.0.0:2376"], "anybody may encrypt");
        assert!(file(r#"{"hosts": ["tcp://0.0.0.0:2376"], "tlsverify": true}"#).is_empty());
        assert!(file(r#"{"hosts": ["fd://"]}"#).is_empty());
        assert!(file("{}").is_empty());
        for line in
            ["dockerd\0-H\0fd://\0-H\0:2375", "dockerd\0--host=:2375", "dockerd\0-H=:2375\0--tls", "dockerd\0-H:2375"]
        {
            assert_eq!(open(&parse_command_line(line)), [":2375"], "{line:?}");
        }
        assert!(open(&parse_command_line("dockerd\0-H\0:2376\0--tlsverify")).is_empty());
        assert_eq!(open(&parse_command_line("dockerd\0-H\0:2376\0--tlsverify=false")), [":2376"]);
        let both = parse_command_line("dockerd\0-H\0:2376").or(parse(r#"{"tlsverify": true}"#).unwrap());
        assert!(open(&both).is_empty());
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,80}", words in proptest::collection::vec("(--[a-z-]{0,12}=?)?\\PC{0,10}", 0..8)) {
            let _ = parse(&text);
            let _ = parse_command_line(&words.join("\0"));
        }
    }
}
