//! What a catalogue wants set: for every tunable check that applies, the target and how far each layer is from it.

use super::{Judge, Resolver, evaluate, finding_id, instance_fact, instances};
use crate::catalog::check::Tune;
use crate::catalog::predicate::Predicate;
use crate::facts::{Layer, State, Value};
use crate::report::model::{Finding, Outcome};

/// A knob on one layer, seen from its target.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It has this value, which is the target or as good: it is left alone.
    Accepted(Value),
    /// It has this value, which is not what the profile wants.
    Off(Value),
    /// There is no such thing here, and why.
    Absent(String),
    /// It could not be read, and why.
    Unknown(String),
    /// Nobody looked.
    NotGathered,
}

/// A check that wants a knob at a target.
#[derive(Debug, Clone)]
pub struct Wish {
    pub finding: Finding,
    /// The fact that the knob is read as: `sysctl.vm.overcommit_memory`.
    pub fact: String,
    pub to: Value,
    pub live: Standing,
    pub boot: Standing,
    pub container: Standing,
}

impl Judge<'_> {
    /// The wishes of the selected checks. What does not apply here wishes nothing.
    pub fn wishes(&self, select: &dyn Fn(&str, &str) -> bool) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for check in &self.catalogue.checks {
            let Some(tune) = &check.tune else { continue };
            let expected = self.expected(check, check.pass.as_ref());
            for instance in instances(check, &self.catalogue.parameters) {
                let id = finding_id(check, instance.name.as_deref());
                if !select(&id, &check.id) {
                    continue;
                }
                let fact = instance_fact(check, instance.name.as_deref());
                let finding = self.finding(check, instance, id, &expected);
                if finding.result != Outcome::NotApplicable {
                    wishes.extend(self.resolver.wish(tune, fact, finding));
                }
            }
        }
        wishes
    }
}

impl Resolver<'_> {
    /// `None` when the target itself depends on something unknown: then the finding is unknown too, and says why.
    fn wish(&self, tune: &Tune, fact: String, finding: Finding) -> Option<Wish> {
        let to = self.literal(&tune.to).ok()?.into_owned();
        let equals = Predicate::Equals(tune.to.clone());
        let accept = tune.accept.as_ref().unwrap_or(&equals);
        let found = self.find(&fact);
        let standing = |layer| match found.get(layer).map(|fact| fact.state.clone()) {
            None => Standing::NotGathered,
            Some(State::Absent(why)) => Standing::Absent(why.to_string()),
            Some(State::Unknown { error, .. }) => Standing::Unknown(error),
            Some(State::Known(value)) => match evaluate::holds(accept, &value, false, self) {
                Ok(true) => Standing::Accepted(value),
                Ok(false) => Standing::Off(value),
                Err(error) => Standing::Unknown(error),
            },
        };
        let (live, boot, container) = (standing(Layer::Live), standing(Layer::Boot), standing(Layer::Container));
        drop(found);
        Some(Wish { finding, fact, to, live, boot, container })
    }
}
