//! The guard and the entries of ufw and firewalld in a script.

use crate::change::Change;
use crate::change::shell::quote;
use crate::report::escape;
use crate::subjects::firewall::model::writer::Writer;
use crate::subjects::firewall::model::{boot, guard};

/// What a shell makes a change of the firewall with; `None` for any other change.
pub fn commands(change: &Change) -> Option<String> {
    let (family, name) = change.target.split_once(':')?;
    match family {
        "guard" => match Writer::named(name)? {
            Writer::Nft => {
                Some(format!("nft -f - <<'PREFLIGHT'\n{}{}PREFLIGHT\n", guard::REMOVE, escape::lines(&change.after)))
            }
            Writer::Iptables(variant) => boot::commands(variant, &change.after),
        },
        "service" => Some(format!("systemctl daemon-reload\nsystemctl start {}\n", quote(name))),
        // The value of an entry is the command that makes it.
        "ufw" | "firewalld" | "firewalld-permanent" => Some(format!("{}\n", escape::text(&change.after))),
        _ => None,
    }
}
