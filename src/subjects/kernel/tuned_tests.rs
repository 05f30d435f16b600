use super::*;

const CONF: &str = "[vm]\ntransparent_hugepages=always\n";

fn existing(files: &[(&str, &str)]) -> Existing {
    Existing(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

fn made(files: &[(&str, &str)]) -> Result<Child, String> {
    child(&existing(files), "never")
}

/// Another profile that includes it, and one that includes that.
const CHAIN: [(&str, &str); 3] = [
    ("/usr/lib/tuned/base/tuned.conf", CONF),
    ("/usr/lib/tuned/middle/tuned.conf", "[main]\ninclude=base\n"),
    ("/usr/lib/tuned/outer/tuned.conf", "[main]\ninclude=middle\n"),
];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    CHAIN.iter().chain(more).copied().collect()
}

#[test]
fn what_was_active_is_included_whole() {
    let child = made(&with(&[(files::TUNED_ACTIVE, "outer\n")])).unwrap();
    assert_eq!((child.path, child.included.as_str(), child.was_chosen_by_tuned), (files::TUNED, "outer", false));
    let read = |path: &str| {
        let chain = CHAIN.iter().find(|(known, _)| *known == path).map(|(_, text)| (*text).to_owned());
        Ok(if path == files::TUNED { Some(child.text.clone()) } else { chain })
    };
    let resolved = tuned::resolve(files::TUNED_NAME, &read).unwrap();
    assert_eq!(resolved.huge_pages.iter().map(|tune| tune.value.clone()).collect::<Vec<_>>(), [Ok("never".to_owned())]);
    let two = made(&with(&[(files::TUNED_ACTIVE, "middle outer\n"), (files::TUNED_MODE, "auto\n")])).unwrap();
    assert_eq!((two.included.as_str(), two.was_chosen_by_tuned), ("middle,outer", true));
}

/// `LOAD_DIRECTORIES` of tuned 2.20 and `CFG_DEF_PROFILE_DIRS` of 2.25, in tuned/consts.py. Seen failing with `TUNED` always.
#[test]
fn a_newer_tuned_gets_it_where_it_looks() {
    let files = [("/usr/lib/tuned/profiles/base/tuned.conf", CONF), (files::TUNED_ACTIVE, "base")];
    assert_eq!(made(&files).unwrap().path, files::TUNED_NEW);
}

#[test]
fn another_word_keeps_what_is_included() {
    let ours = files::tuned_text("outer", "madvise");
    let active = (files::TUNED_ACTIVE, "preflight\n");
    let child = made(&with(&[active, (files::TUNED, &ours)])).unwrap();
    assert_eq!(child.text, files::tuned_text("outer", "never"));
}

/// Seen failing without the resolved profile being looked at: the plan promised `never`, and the boot brought `always`.
#[test]
fn what_cannot_come_to_it_is_told() {
    let foreign = (files::TUNED, "[main]\ninclude=outer\n");
    let ours = files::tuned_text("outer", "never");
    let active = (files::TUNED_ACTIVE, "outer\n");
    for (more, why) in [
        (vec![], "it has no active profile"),
        (vec![(files::TUNED_ACTIVE, " \n")], "it has no active profile"),
        (vec![(files::TUNED_ACTIVE, "a;b\n")], "the active profile `a;b` has an unusual name"),
        (vec![active, foreign], "/etc/tuned/preflight/tuned.conf is there and not preflight's"),
        (
            vec![(files::TUNED_ACTIVE, "preflight\n")],
            "`preflight` is active, and /etc/tuned/preflight/tuned.conf does not say what it includes",
        ),
        (
            vec![(files::TUNED_ACTIVE, "outer preflight"), (files::TUNED, ours.as_str())],
            "`preflight` is active together with others",
        ),
        (vec![(files::TUNED_ACTIVE, "nowhere\n")], "tuned's profile `nowhere` does not exist"),
        (
            vec![active, (files::TUNED_MAIN, "profile_dirs = /opt/tuned\n")],
            "`profile_dirs` of /etc/tuned/tuned-main.conf names other folders",
        ),
        (
            vec![active, (files::TUNED_POST_LOADED, "late\n"), ("/usr/lib/tuned/late/tuned.conf", CONF)],
            "/usr/lib/tuned/late/tuned.conf:2 would still have its say",
        ),
        (
            vec![
                (files::TUNED_ACTIVE, "x"),
                ("/etc/tuned/x/tuned.conf", "[x]\ntype=vm\ntransparent_hugepages=always\n"),
            ],
            "/etc/tuned/x/tuned.conf:3 would still have its say",
        ),
        (
            vec![
                (files::TUNED_ACTIVE, "x"),
                ("/etc/tuned/x/tuned.conf", "[vm]\nuname_regex=.\ntransparent_hugepages=always\n"),
            ],
            "/etc/tuned/preflight/tuned.conf:9 would still have its say",
        ),
        (
            vec![(files::TUNED_ACTIVE, "f"), ("/etc/tuned/f/tuned.conf", "[main]\ninclude=${f:virt_check:a:b}\n")],
            "tuned's profile `f` includes `${f:virt_check:a:b}`, which only tuned can tell",
        ),
    ] {
        assert_eq!(made(&with(&more)), Err(why.to_owned()), "{more:?}");
    }
}
