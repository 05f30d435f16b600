//! Who else decides what preflight would change, as an id that `--allow` takes.

/// tuned, for its choice of profile.
pub const TUNED: &str = "owner:tuned";

/// The id under which a conflict with the owner of a file is named and allowed; `by` is `/etc/sysctl.d/99-zzz.conf:3`.
pub fn owner_id(by: &str) -> String {
    let path = by.rsplit_once(':').map_or(by, |(path, _)| path);
    if path.contains("/tuned/") { TUNED.to_owned() } else { format!("owner:{path}") }
}

/// Whether an id has the form of a conflict with the owner of a file.
pub fn is_file_owner(id: &str) -> bool {
    id.starts_with("owner:/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_named_by_its_file_without_the_line() {
        assert_eq!(owner_id("/etc/sysctl.d/99-zzz.conf:3"), "owner:/etc/sysctl.d/99-zzz.conf");
        assert_eq!(owner_id("/usr/lib/tuned/virtual-guest/tuned.conf:9"), "owner:tuned");
        assert!(is_file_owner(&owner_id("/etc/sysctl.d/99-zzz.conf:3")));
    }
}
