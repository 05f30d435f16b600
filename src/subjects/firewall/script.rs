//! The guard and the entries of ufw and firewalld in a script.

use crate::change::Change;
use crate::change::shell::quote;
use crate::change::target::Target;
use crate::report::escape;
use crate::subjects::firewall::model::writer::Writer;
use crate::subjects::firewall::model::{boot, guard};

/// What a shell makes a change of the firewall with; `None` for any other change.
pub fn commands(change: &Change) -> Option<String> {
    match Target::of(&change.target)? {
        Target::Guard(name) => match Writer::named(name)? {
            Writer::Nft => {
                Some(format!("nft -f - <<'PREFLIGHT'\n{}{}PREFLIGHT\n", guard::REMOVE, escape::lines(&change.after)))
            }
            Writer::Iptables(variant) => boot::commands(variant, &change.after),
        },
        Target::Service(name) => Some(format!("systemctl daemon-reload\nsystemctl start {}\n", quote(name))),
        // The value of an entry is the command that makes it.
        Target::Ufw(_) | Target::Firewalld(_) | Target::FirewalldPermanent(_) => {
            Some(format!("{}\n", escape::text(&change.after)))
        }
        _ => None,
    }
}
