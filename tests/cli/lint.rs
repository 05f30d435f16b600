//! `preflight lint`: every class of mistake, each with its place and a suggestion.

use crate::support::{Lab, check, profile};

/// The first line and the help of every diagnostic of a file, with its place.
fn lint(text: &str) -> String {
    let lab = Lab::new();
    let file = lab.write("p.toml", text);
    let ran = lab.run(["lint", file.to_str().unwrap()]);
    assert_eq!(ran.code, if ran.stderr.is_empty() { 0 } else { 2 }, "{}", ran.stderr);
    format!("{}{}", ran.stderr, ran.stdout).replace("@LAB@/", "")
}

#[test]
fn a_sound_profile_has_no_mistakes() {
    let good = check("a.b", "required", "fact = \"memory.total\"\npass = { at_least = \"4 GiB\" }");
    assert_eq!(lint(&profile(&good)), "no mistakes in 1 file\n");
}

#[test]
fn mistakes_show_the_line_and_a_suggestion() {
    let bad = check("a.b", "requird", "fact = \"memory.totl\"\npas = { at_least = \"4 GiB\" }\npass = { atleast = 3 }");
    insta::assert_snapshot!(lint(&profile(&bad)), @r#"
    error[unknown-fact]: no probe gathers a fact `memory.totl`
     --> p.toml:9:8
      |
    9 | fact = "memory.totl"
      |        ^^^^^^^^^^^^^
      |
      = help: did you mean `memory.total`? `preflight list facts` shows all
    error[wrong-type]: `requird` is no severity
     --> p.toml:6:12
      |
    6 | severity = "requird"
      |            ^^^^^^^^^
      |
      = help: did you mean `required`?
    error[unknown-key]: a check has no key `pas`
      --> p.toml:10:1
       |
    10 | pas = { at_least = "4 GiB" }
       | ^^^
       |
       = help: did you mean `pass`?
    3 mistakes in 1 file
    "#);
}

/// Each mistake alone, by the code it must be told by. Seen failing for each code with its report removed.
#[test]
fn every_class_of_mistake_has_its_code() {
    let one = |rest: &str| profile(&check("a.b", "required", rest));
    let memory = "fact = \"memory.total\"\n";
    let sysctl = "fact = \"sysctl.vm.x\"\n";
    let cases: &[(&str, String)] = &[
        ("syntax", "name = \n".to_owned()),
        ("unknown-key", one(&format!("{memory}pass = {{ at_least = \"1 GiB\" }}\ncolour = 1"))),
        ("missing-key", one("fact = \"memory.total\"")),
        ("wrong-type", one(&format!("{memory}pass = {{ at_least = true }}"))),
        ("wrong-unit", one(&format!("{memory}pass = {{ at_least = 4 }}"))),
        ("wrong-unit", one(&format!("{memory}pass = {{ at_least = \"4 s\" }}"))),
        ("unknown-fact", one("fact = \"memory.toal\"\npass = { at_least = \"1 GiB\" }")),
        ("unknown-parameter", one(&format!("{sysctl}pass = {{ at_least = {{ param = \"nope\" }} }}"))),
        ("unknown-recipe", one(&format!("{sysctl}pass = {{ equals = 1 }}\nremedy = \"install-gti\""))),
        ("unknown-check", one(&format!("{sysctl}pass = {{ equals = 1 }}\nneeds = [\"a.c\"]"))),
        ("unknown-profile", format!("extends = \"nope\"\n{}", one(&format!("{sysctl}pass = {{ equals = 1 }}")))),
        ("duplicate-id", profile(&check("a.b", "info", &format!("{sysctl}pass = {{ equals = 1 }}")).repeat(2))),
        ("bad-id", profile(&check("A b", "info", &format!("{sysctl}pass = {{ equals = 1 }}")))),
        ("bad-predicate", one(&format!("{sysctl}pass = {{}}"))),
        ("bad-predicate", one(&format!("{sysctl}pass = {{ equals = 1, at_least = 2 }}"))),
        ("bad-predicate", one(&format!("{sysctl}pass = {{ one_of = [] }}"))),
        ("wrong-predicate", one("fact = \"docker.warnings\"\npass = { at_least = 1 }")),
        ("empty-range", one(&format!("{sysctl}pass = {{ range = [10, 1] }}"))),
        ("dead-include", format!("{}\nchecks = [\"nope.*\"]", "name = \"x\"\ntitle = \"x\"")),
        ("empty-profile", profile("")),
        (
            "dead-override",
            format!(
                "{}[[override]]\nid = \"kernel.thp\"\nseverity = \"info\"\n",
                one(&format!("{sysctl}pass = {{ equals = 1 }}"))
            ),
        ),
        ("dead-warn", one(&format!("{sysctl}pass = {{ at_least = 1 }}\nwarn = {{ equals = 5 }}"))),
        (
            "wide-accept",
            one(&format!("{sysctl}pass = {{ equals = 1 }}\ntune = {{ to = 1, accept = {{ at_least = 0 }} }}")),
        ),
        ("bad-target", one(&format!("{sysctl}pass = {{ equals = 1 }}\ntune = {{ to = 2 }}"))),
        (
            "not-tunable",
            one("fact = \"sysctl.kernel.core_pattern\"\npass = { equals = \"|/x\" }\ntune = { to = \"|/x\" }"),
        ),
        ("not-tunable", one(&format!("{memory}pass = {{ at_least = \"1 GiB\" }}\ntune = {{ to = \"1 GiB\" }}"))),
        (
            "needs-cycle",
            profile(
                &[("a.b", "a.c"), ("a.c", "a.b")]
                    .map(|(id, need)| {
                        check(id, "info", &format!("{sysctl}pass = {{ equals = 1 }}\nneeds = [\"{need}\"]"))
                    })
                    .concat(),
            ),
        ),
        (
            "out-of-range",
            format!(
                "{}[[parameter]]\nname = \"p\"\nkind = \"number\"\ndefault = 5\nmax = 4\nabout = \"x\"\n",
                one(&format!("{sysctl}pass = {{ equals = 1 }}"))
            ),
        ),
        (
            "bad-port",
            format!(
                "{}[[parameter]]\nname = \"ports\"\nkind = \"ports\"\ndefault = [{{ name = \"x\", port = \"9-1\" }}]\nabout = \"x\"\n",
                one(&format!("{sysctl}pass = {{ equals = 1 }}"))
            ),
        ),
        (
            "wrong-type",
            format!(
                "{}[[parameter]]\nname = \"p\"\nkind = \"networks\"\ndefault = [\"10.0.0.1/8\"]\nabout = \"x\"\n",
                one(&format!("{sysctl}pass = {{ equals = 1 }}"))
            ),
        ),
        ("extends-cycle", format!("extends = \"p\"\n{}", one(&format!("{sysctl}pass = {{ equals = 1 }}")))),
        ("bad-waiver", "[[waiver]]\nid = \"a.*\"\nowner = \"x\"\nreason = \"x\"\nexpires = \"soon\"\n".to_owned()),
    ];
    for (code, text) in cases {
        let output = lint(text);
        assert!(output.contains(&format!("[{code}]")), "no {code} for\n{text}\n{output}");
        assert!(output.contains("p.toml:"), "no place for {code}\n{output}");
    }
}

#[test]
fn the_catalogue_of_the_repository_has_no_mistakes() {
    let root = crate::support::repository();
    let mut files = Vec::new();
    for folder in ["checks", "profiles", "profiles/os"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 10, "{files:?}");
    let ran = Lab::new().run(std::iter::once("lint".into()).chain(files));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

/// What the parent would have brought is not known. Seen failing without `Diagnostics::forget_consequences`: seven mistakes.
#[test]
fn an_unknown_parent_is_one_mistake_and_not_what_follows_from_it() {
    let check = check("a.b", "info", "fact = \"memory.total\"\npass = { at_least = { param = \"maxmemory\" } }");
    let text = format!(
        "extends = \"redis-sentinell\"\nchecks = [\"kernel.*\", \"theirs.*\"]\n[set]\nmaxmemory = \"1 GiB\"\n[[override]]\nid = \"theirs.one\"\nseverity = \"info\"\n{check}"
    );
    let said = lint(&format!("name = \"lab\"\ntitle = \"x\"\n{text}"));
    assert!(said.starts_with("error[unknown-profile]") && said.contains("did you mean `redis-sentinel`?"), "{said}");
    assert!(said.ends_with("\n1 mistake in 1 file\n"), "{said}");
    // A mistake of the file's own is still told.
    let said = lint(&format!("name = \"lab\"\ntitle = \"x\"\ncolour = 1\n{text}"));
    assert!(said.contains("error[unknown-key]") && said.ends_with("\n2 mistakes in 1 file\n"), "{said}");
}
