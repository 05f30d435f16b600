//! Which adapter a target is set by.
//!
//! The set is closed. A plan or a journal only names a target; [`HostKnobs::resolve`] turns the name into an adapter or
//! refuses it, so that no journal, however made, can point a write anywhere else.

use super::firewall::knob::{firewalld, guard, guard_iptables, service, ufw};
use super::kernel::{knob_sysctl as sysctl, knob_thp as thp};
use super::ports::knob as number_set;
use crate::apply::Machine;
use crate::apply::knob::{file, link};
use crate::change::knob::{Knob, KnobError, Knobs};
use crate::facts::Layer;
use crate::host::safe_file::Tree;

/// The knobs of a host or, for the boot layer, of an image.
#[derive(Debug)]
pub struct HostKnobs<'a> {
    tree: &'a Tree,
    is_live: bool,
}

impl<'a> HostKnobs<'a> {
    /// `is_live`: whether the tree is the running machine. If not, only files can be set.
    pub fn new(tree: &'a Tree, is_live: bool) -> Self {
        Self { tree, is_live }
    }

    pub fn of(machine: &'a Machine) -> Self {
        Self::new(machine.tree(), machine.is_live())
    }
}

impl Knobs for HostKnobs<'_> {
    fn resolve(&self, target: &str) -> Result<Box<dyn Knob + '_>, KnobError> {
        let (family, name) =
            target.split_once(':').ok_or_else(|| KnobError::UnknownTarget(target.escape_default().to_string()))?;
        if !matches!(family, "file" | "link") && !self.is_live {
            return Err(KnobError::Unavailable { target: target.to_owned(), reason: "not a running host".to_owned() });
        }
        let knob: Option<Box<dyn Knob + '_>> = match family {
            "sysctl" if number_set::is_set(name) => Some(Box::new(number_set::NumberSet::new(self.tree, name)?)),
            "sysctl" => Some(Box::new(sysctl::Sysctl::new(self.tree, name)?)),
            "thp" => thp::Thp::new(self.tree, name).map(|knob| Box::new(knob) as _),
            "ufw" => ufw::Ufw::new(self.tree, name).map(|knob| Box::new(knob) as _),
            "firewalld" => firewalld::Firewalld::new(self.tree, name, Layer::Live).map(|knob| Box::new(knob) as _),
            "firewalld-permanent" => {
                firewalld::Firewalld::new(self.tree, name, Layer::Boot).map(|knob| Box::new(knob) as _)
            }
            "service" => service::Service::new(self.tree, name).map(|knob| Box::new(knob) as _),
            "guard" => guard::NftGuard::new(self.tree, name)
                .map(|knob| Box::new(knob) as _)
                .or_else(|| guard_iptables::IptablesGuard::new(self.tree, name).map(|knob| Box::new(knob) as _)),
            "link" => link::Link::new(self.tree, name).map(|knob| Box::new(knob) as _),
            "file" => file::ManagedFile::new(self.tree, name).map(|knob| Box::new(knob) as _),
            _ => None,
        };
        knob.ok_or_else(|| KnobError::UnknownTarget(target.escape_default().to_string()))
    }
}
