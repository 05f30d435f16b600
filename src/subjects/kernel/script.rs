//! Kernel settings in a script.

use crate::change::shell::quote;
use crate::change::target::Target;
use crate::change::{Change, files};

/// What a shell sets a kernel setting or huge pages with; `None` for any other change.
pub fn commands(change: &Change) -> Option<String> {
    match Target::of(&change.target)? {
        Target::Sysctl(name) => Some(format!("sysctl -w {}\n", quote(&format!("{name}={}", change.after)))),
        Target::HugePages(name) => {
            let file = if name == "enabled" { name.to_owned() } else { format!("{name}/enabled") };
            let path = format!("{}/{file}", files::THP_FOLDER);
            Some(format!("echo {} > {}\n", quote(&change.after), quote(&path)))
        }
        _ => None,
    }
}
