//! Allow entries in an active ufw or firewalld, added by these themselves.

use super::plan::Asked;
use crate::apply::recovery;
use crate::change::Change;
use crate::change::planner::{Planner, kind};
use crate::change::target::Target;
use crate::facts::{Layer, Value};
use crate::judge::wish::{Standing, Wish};
use crate::subjects::firewall::model::entry::Entry;
use crate::subjects::firewall::model::{firewalld, ufw};

impl Planner<'_> {
    pub(crate) fn firewall_entries(&mut self, wish: &Wish, asked: &Asked<'_>) {
        let words = match &wish.live {
            Standing::Off(Value::Set(words)) if self.context.is_live => words,
            Standing::Unknown(why) => {
                let reason = format!("which entries are missing is not known: {why}");
                return self.manual(wish, &reason, "ufw status numbered\nfirewall-cmd --list-all".to_owned());
            }
            _ => return,
        };
        if let Some(container) = self.inside_container() {
            let reason = format!("this runs inside a container ({container}); the firewall is the host's");
            let text = format!("preflight tune --apply --only {}   # on the host", wish.finding.id);
            return self.manual(wish, &reason, text);
        }
        for word in words {
            if let Some(entry) = word.strip_prefix("ufw: ") {
                match entry.parse::<Entry>() {
                    Ok(entry) => self.ufw_entry(wish, asked, &entry),
                    Err(_) => self.denied(wish, entry, "ufw status numbered"),
                }
            } else if let Some((zone, entry)) = word.strip_prefix("firewalld: ").and_then(|rest| rest.split_once(": "))
            {
                match entry.parse::<Entry>() {
                    Ok(entry) if firewalld::is_zone_name(zone) => self.firewalld_entry(wish, zone, &entry),
                    _ => self.denied(wish, entry, &format!("firewall-cmd --zone={zone} --list-all")),
                }
            }
        }
    }

    /// Somebody's rule comes first: to put ours before it would be to overrule them.
    fn denied(&mut self, wish: &Wish, words: &str, look: &str) {
        let reason = format!("{words}: that rule is the administrator's, and an entry behind it would let nobody in");
        self.manual(wish, &reason, look.to_owned());
    }

    fn ufw_entry(&mut self, wish: &Wish, asked: &Asked<'_>, entry: &Entry) {
        let add = ufw::add(entry, true).join(" ");
        if let Err(why) = self.recovery(wish, asked) {
            let reason = format!("ufw keeps an entry at once, and nothing could take it back after a power cut: {why}");
            return self.manual(wish, &reason, add);
        }
        self.entry(wish, Layer::Live, Target::Ufw(&entry.to_string()).to_string(), add, ufw::delete(entry).join(" "));
    }

    /// In the running firewall at once, in the files after the confirm.
    fn firewalld_entry(&mut self, wish: &Wish, zone: &str, entry: &Entry) {
        for (layer, is_permanent) in [(Layer::Live, false), (Layer::Boot, true)] {
            let (add, remove) =
                (firewalld::add(zone, entry, is_permanent), firewalld::remove(zone, entry, is_permanent));
            self.entry(wish, layer, firewalld::target(zone, entry, is_permanent), add, remove);
        }
    }

    fn entry(&mut self, wish: &Wish, layer: Layer, target: String, after: String, undo: String) {
        self.live.push(Change {
            id: wish.finding.id.clone(),
            layer,
            target,
            before: None,
            after,
            kind: kind(wish),
            undo,
            restarts: Vec::new(),
            connectivity_risk: false,
        });
    }

    /// The service that takes back at boot what was not confirmed: before everything that outlives a power cut by itself.
    fn recovery(&mut self, wish: &Wish, asked: &Asked<'_>) -> Result<(), String> {
        let form = recovery::Form::of(self.context.os.service_manager);
        let (file, link) = (Target::File(form.file).to_string(), Target::Link(form.link).to_string());
        if self.live.iter().any(|change| change.target == link) {
            return Ok(());
        }
        let program = match (asked.recovery)() {
            recovery::Standing::InPlace => return Ok(()),
            recovery::Standing::Missing { program } => program,
            recovery::Standing::Impossible(why) => return Err(why),
        };
        let text = form.text(&program);
        let existing = |path: &str| self.context.existing.text(path).map(str::to_owned);
        let (found, before) = (existing(form.file), existing(form.link));
        let change = |target: String, before: Option<String>, after: String, undo: &str| Change {
            id: wish.finding.id.clone(),
            layer: Layer::Live,
            target,
            before,
            after,
            kind: kind(wish),
            undo: undo.to_owned(),
            restarts: Vec::new(),
            connectivity_risk: false,
        };
        let has_link = before.is_some() && found.is_some();
        let undo = if found.is_some() { "write the old content back" } else { "remove the file" };
        let mut first = Vec::new();
        if found.as_ref() != Some(&text) {
            first.push(change(file, found, text, undo));
        }
        if !has_link {
            first.push(change(link, None, form.file.to_owned(), "remove the link"));
        }
        self.live.splice(0..0, first);
        Ok(())
    }
}
