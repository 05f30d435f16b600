//! Limits on open files: of containers, of Docker's default, of services.

use crate::change::Change;
use crate::change::files;
use crate::change::files::Line;
use crate::change::planner::{Planner, kind, text};
use crate::change::target::Target;
use crate::facts::{Layer, service};
use crate::judge::wish::{Standing, Wish};

/// The override of consent for the daemon's own file.
pub const ALLOW_DAEMON_JSON: &str = "docker.daemon-json";

/// The facts that are tuned here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunable<'a> {
    Containers,
    /// The service by its name; none in a check that is asked for each of a list.
    Service(Option<&'a str>),
}

impl<'a> Tunable<'a> {
    /// `None` for a fact of another subject.
    pub fn of(fact: &'a str) -> Option<Self> {
        match fact {
            "limits.container-nofile" => Some(Self::Containers),
            "limits.service-nofile" => Some(Self::Service(None)),
            _ => fact.strip_prefix("limits.service-nofile.").map(|service| Self::Service(Some(service))),
        }
    }

    pub fn plan(self, planner: &mut Planner<'_>, wish: &Wish) {
        match self {
            Self::Containers => planner.nofile(wish),
            Self::Service(Some(service)) => planner.service_nofile(wish, service),
            Self::Service(None) => {}
        }
    }
}

impl Planner<'_> {
    /// The limit of containers is theirs: a Compose fragment, or with consent the daemon's default.
    pub(crate) fn nofile(&mut self, wish: &Wish) {
        if matches!(wish.container, Standing::Accepted(_)) {
            return;
        }
        let limit = text(&wish.to);
        if self.context.allow.iter().any(|id| id == ALLOW_DAEMON_JSON) && !limit.is_empty() {
            match daemon_json(self.context.existing.text(files::DAEMON_JSON), &limit) {
                Ok(Some(after)) => return self.daemon_json(wish, after),
                Ok(None) => {
                    let reason = format!("{} is as it should be; Docker has not read it yet", files::DAEMON_JSON);
                    let service =
                        if self.is_openrc() { "rc-service docker restart" } else { "systemctl restart docker" };
                    return self.manual(wish, &reason, service.to_owned());
                }
                Err(error) => return self.manual(wish, &error, format!("# fix {} first", files::DAEMON_JSON)),
            }
        }
        let reason =
            "a container's limits are set where it is started; `--allow docker.daemon-json` sets Docker's default";
        self.manual(wish, reason, format!("ulimits:\n  nofile:\n    soft: {limit}\n    hard: {limit}"));
    }

    /// A service of systemd gets its limit from a drop-in, and has it once it is restarted.
    pub(crate) fn service_nofile(&mut self, wish: &Wish, service: &str) {
        let limit = text(&wish.to);
        match &wish.boot {
            // Enough after a restart: what runs may not have it yet, which `check` says.
            Standing::Accepted(_) => {
                if let Standing::Off(now) = &wish.live {
                    let reason = format!("it runs with {now} and gets the new limit with its next start");
                    self.manual(
                        wish,
                        &reason,
                        format!("systemctl daemon-reload\nsystemctl restart {}", service::unit(service)),
                    );
                }
            }
            Standing::Off(found) => {
                let path = files::unit_drop_in(service);
                let line = Line { value: limit, check: wish.finding.id.clone() };
                if self.context.existing.text(&path) == Some(files::unit_text(&line).as_str()) {
                    return self.owner_conflict(&wish.fact, "LimitNOFILE", &path, found);
                }
                self.units.insert(path.clone(), line);
                self.boot.entry(path).or_default().push((wish.finding.id.clone(), kind(wish)));
            }
            Standing::Unknown(why) => {
                let reason = format!("what it gets at its next start is not known, so it is not changed: {why}");
                self.manual(wish, &reason, format!("# look at it: systemctl cat {}", service::unit(service)));
            }
            Standing::Absent(_) | Standing::NotGathered => {}
        }
    }

    fn daemon_json(&mut self, wish: &Wish, after: String) {
        let before = self.context.existing.text(files::DAEMON_JSON).map(Into::into);
        let target = Target::File(files::DAEMON_JSON).to_string();
        self.conflict(ALLOW_DAEMON_JSON, &target, "the default of all containers changes with Docker's next restart");
        self.live.push(Change {
            id: wish.finding.id.clone(),
            layer: Layer::Boot,
            target,
            undo: if before.is_some() { "write the old content back".into() } else { "remove the file".into() },
            before,
            after,
            kind: kind(wish),
            restarts: vec!["docker".into()],
            connectivity_risk: false,
        });
    }
}

/// The daemon's file with the default limit put in, everything else kept; `None` when it says so already.
fn daemon_json(existing: Option<&str>, limit: &str) -> Result<Option<String>, String> {
    let number: i64 = limit.parse().map_err(|_| format!("`{limit}` is no limit"))?;
    let text = existing.filter(|text| !text.trim().is_empty()).unwrap_or("{}");
    let mut root: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| format!("{}:{}:{}: not JSON", files::DAEMON_JSON, error.line(), error.column()))?;
    let Some(object) = root.as_object_mut() else { return Err(format!("{} holds no object", files::DAEMON_JSON)) };
    let ulimits = object.entry("default-ulimits").or_insert_with(|| serde_json::json!({}));
    let Some(ulimits) = ulimits.as_object_mut() else {
        return Err(format!("default-ulimits of {} is no object", files::DAEMON_JSON));
    };
    let wanted = serde_json::json!({ "Name": "nofile", "Hard": number, "Soft": number });
    if ulimits.insert("nofile".into(), wanted.clone()) == Some(wanted) {
        return Ok(None);
    }
    serde_json::to_string_pretty(&root).map(|text| Some(text + "\n")).map_err(|error| error.to_string())
}
