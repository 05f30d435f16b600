//! Huge pages where tuned decides about them at boot: with consent a profile of our own, which includes the active one,
//! becomes the active one. By its files and not by `tuned-adm profile`: that would apply everything else in the profile
//! again, over whatever was set by hand since, and nobody could take that back.

use crate::change::files;
use crate::change::files::Existing;
use crate::change::owner::TUNED as ALLOW_TUNED;
use crate::change::planner::{Planner, kind};
use crate::change::target::Target;
use crate::change::{Change, Conflict};
use crate::facts::Layer;
use crate::judge::wish::{Standing, Wish};
use crate::subjects::kernel::tuned;

/// The profile as it is to be, and what becomes of tuned's choice.
#[derive(Debug, PartialEq, Eq)]
struct Child {
    path: &'static str,
    text: String,
    /// What it includes.
    included: String,
    /// Whether tuned chose its profile by itself, which it does not any more.
    was_chosen_by_tuned: bool,
}

impl Planner<'_> {
    /// tuned starts later than tmpfiles and would win: it is respected unless its owner agrees.
    pub(crate) fn tuned(&mut self, wish: &Wish, word: &str, source: &str) {
        let existing = self.context.existing;
        let child = child(existing, word);
        let is_allowed = self.context.allow.iter().any(|id| id == ALLOW_TUNED);
        let sets = if matches!(wish.boot, Standing::Unknown(_)) { "may set" } else { "sets" };
        let reason = format!("tuned {sets} the huge pages at each start ({source}) and would win over a file");
        match child {
            Ok(child) if is_allowed => self.become_active(wish, child),
            Ok(child) => {
                let reason = format!("{reason}; `--allow {ALLOW_TUNED}` makes a profile for it");
                let folder = child.path.trim_end_matches("/tuned.conf");
                let text = format!(
                    "mkdir -p {folder}\nprintf '[main]\\ninclude={}\\n[vm]\\ntransparent_hugepages={word}\\n' > {}\ntuned-adm profile {}",
                    child.included,
                    child.path,
                    files::TUNED_NAME,
                );
                self.manual(wish, &reason, text);
            }
            Err(why) => {
                let text = format!("# in a profile of tuned that comes last:\n[vm]\ntransparent_hugepages={word}");
                self.manual(wish, &format!("{reason}, and a profile for it cannot be made: {why}"), text);
            }
        }
    }

    /// At every point between these steps tuned finds a profile that exists: ours lies there before it is named, and is
    /// named no more before it goes.
    fn become_active(&mut self, wish: &Wish, child: Child) {
        let active = format!("{}\n", files::TUNED_NAME);
        let mut steps = vec![(child.path, child.text)];
        if child.was_chosen_by_tuned {
            steps.push((files::TUNED_MODE, "manual\n".to_owned()));
        }
        steps.push((files::TUNED_ACTIVE, active));
        steps.retain(|(path, text)| self.context.existing.text(path) != Some(text.as_str()));
        if steps.is_empty() {
            return;
        }
        let by_itself = if child.was_chosen_by_tuned { ", and tuned no longer chooses one by itself" } else { "" };
        self.conflicts.push(Conflict {
            id: ALLOW_TUNED.to_owned(),
            targets: steps.iter().map(|(path, _)| Target::File(path).to_string()).collect(),
            reason: format!(
                "tuned's profile becomes `{}`, which includes `{}`{by_itself}; a tuned that runs takes it at its next start",
                files::TUNED_NAME,
                child.included
            ),
        });
        for (path, after) in steps {
            let before = self.context.existing.text(path).map(str::to_owned);
            self.live.push(Change {
                id: wish.finding.id.clone(),
                layer: Layer::Boot,
                target: Target::File(path).to_string(),
                undo: if before.is_some() { "write the old content back".into() } else { "remove the file".into() },
                before,
                after,
                kind: kind(wish),
                restarts: Vec::new(),
                connectivity_risk: false,
            });
        }
    }
}

/// The profile that keeps what is active and sets the huge pages, or why none can be made.
fn child(existing: &Existing, word: &str) -> Result<Child, String> {
    let read = |path: &str| existing.text(path).unwrap_or_default();
    let active = read(files::TUNED_ACTIVE);
    let names: Vec<&str> = active.split_whitespace().collect();
    let is_plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if names.is_empty() {
        return Err("it has no active profile".to_owned());
    }
    if let Some(odd) = names.iter().find(|name| !is_plain(name)) {
        return Err(format!("the active profile `{odd}` has an unusual name"));
    }
    let path = folder(existing)?;
    let ours = existing.text(path);
    if ours.is_some_and(|text| !files::is_ours(text)) {
        return Err(format!("{path} is there and not preflight's"));
    }
    let included = if names == [files::TUNED_NAME] {
        let known = ours.and_then(files::parse_tuned);
        known.ok_or_else(|| format!("`{}` is active, and {path} does not say what it includes", files::TUNED_NAME))?.0
    } else if names.contains(&files::TUNED_NAME) {
        return Err(format!("`{}` is active together with others", files::TUNED_NAME));
    } else {
        names.join(",")
    };
    let text = files::tuned_text(&included, word);
    // Does it come to what it is meant for? A section of another name, a condition or the post-loaded profile can win.
    let with_ours = |path_read: &str| {
        Ok(if path_read == path { Some(text.clone()) } else { existing.text(path_read).map(str::to_owned) })
    };
    let chain = format!("{} {}", files::TUNED_NAME, read(files::TUNED_POST_LOADED));
    let resolved = tuned::resolve(&chain, &with_ours).map_err(|error| error.to_string())?;
    if let Some(problem) = resolved.problem {
        return Err(problem);
    }
    if let Some(other) = resolved.huge_pages.iter().find(|tune| tune.value.as_deref() != Ok(word)) {
        return Err(format!("{} would still have its say", other.at));
    }
    let was_chosen_by_tuned = read(files::TUNED_MODE).trim() == "auto";
    Ok(Child { path, text, included, was_chosen_by_tuned })
}

/// Where tuned looks for profiles of users: since 2.23 in a folder of their own, and only there.
fn folder(existing: &Existing) -> Result<&'static str, String> {
    let main = existing.text(files::TUNED_MAIN).unwrap_or_default();
    if tuned::has_own_directories(main) {
        return Err(format!("`profile_dirs` of {} names other folders", files::TUNED_MAIN));
    }
    let is_new = existing.0.keys().any(|path| path.starts_with("/usr/lib/tuned/profiles/"));
    Ok(if is_new { files::TUNED_NEW } else { files::TUNED })
}

#[cfg(test)]
#[path = "tuned_tests.rs"]
mod tests;
