//! `--help` of every subcommand, pinned: a change of the command line is a visible diff.

use crate::support::Lab;

#[test]
fn help_of_every_subcommand() {
    let lab = Lab::new();
    let mut all = String::new();
    for args in [
        &["--help"] as &[&str],
        &["check", "--help"],
        &["facts", "--help"],
        &["explain", "--help"],
        &["list", "--help"],
        &["lint", "--help"],
        &["generate", "--help"],
    ] {
        let ran = lab.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
        assert!(ran.stdout.lines().all(|line| line.chars().count() <= 100), "{}", ran.stdout);
        all.push_str(&format!("$ preflight {}\n{}\n", args.join(" "), ran.stdout));
    }
    insta::assert_snapshot!(all, @"");
}

#[test]
fn the_version_is_the_package_version() {
    assert_eq!(Lab::new().run(["--version"]).stdout, format!("preflight {}\n", env!("CARGO_PKG_VERSION")));
}
