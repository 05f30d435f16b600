//! stand-in until the derived facts are merged
use super::{Fact, Facts};
use crate::catalog::{os::OsProfile, parameters::Parameters};
pub fn derive(id: &str, _f: &Facts, _p: &Parameters, _o: &OsProfile, _t: &str) -> Fact {
    Fact::unknown("not built", None, id)
}
pub fn inputs(_id: &str) -> &'static [&'static str] {
    &[]
}
