//! The pages under `docs/` and the README are true: their examples lint, their commands run, what is generated is current,
//! what they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use preflight::catalog::diagnostic::Code;

use crate::support::{Lab, repository};

fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == ending)
}

/// The pages that people read.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "ansible/README.md", "fuzz/README.md"]
            .map(Into::into)
            .into();
    for entry in fs::read_dir(repository().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if has_ending(&name, "md") {
            pages.push(format!("docs/{name}"));
        }
    }
    pages
}

/// The fenced blocks of a page, as (info string, text).
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, body)), None) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// Keys of one check, made a whole check by what they leave out.
fn completed(fragment: &str) -> String {
    let table: toml::Table = fragment.parse().unwrap_or_else(|error| panic!("{error}\n{fragment}"));
    let mut text = "section = \"EXAMPLE\"\n[[check]]\n".to_owned();
    for (key, value) in [
        ("id", "\"example.fragment\""),
        ("title", "\"it is so\""),
        ("severity", "\"info\""),
        ("why", "\"because\""),
        ("fix", "\"do it\""),
    ] {
        if !table.contains_key(key) {
            text.extend([key, " = ", value, "\n"]);
        }
    }
    text + fragment
}

/// Writes the TOML examples of a page into a lab: those that begin with `# NAME.toml` under that name.
fn written(lab: &Lab, text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (number, (info, body)) in blocks(text).iter().enumerate() {
        let (name, body) = match info.as_str() {
            "toml" => {
                let named = body
                    .lines()
                    .next()
                    .and_then(|line| line.strip_prefix("# "))
                    .filter(|name| has_ending(name, "toml"));
                (named.map_or_else(|| format!("example-{number}.toml"), Into::into), body.clone())
            }
            "toml fragment" => (format!("fragment-{number}.toml"), completed(body)),
            _ => continue,
        };
        lab.write(&name, &body);
        names.push(name);
    }
    names
}

/// Seen failing with a key of an example misspelt.
#[test]
fn the_examples_have_no_mistakes() {
    let mut linted = 0;
    for name in ["docs/catalogue.md", "README.md"] {
        let lab = Lab::new();
        for file in written(&lab, &page(name)) {
            let ran = lab.run(["lint", &file]);
            assert_eq!(
                (ran.code, ran.stdout.as_str()),
                (0, "no mistakes in 1 file\n"),
                "{name}, {file}:\n{}",
                ran.stderr
            );
            linted += 1;
        }
    }
    assert!(linted >= 10, "{linted}");
}

/// Commands as they stand after `$ preflight`, run in order beside the examples of their page. `#` begins a comment, and
/// `> FILE` keeps the output. Whether this machine is ready is not the question: only wrong usage and internal errors fail.
#[test]
fn the_commands_of_the_pages_run() {
    let mut run = 0;
    for name in ["docs/catalogue.md", "README.md"] {
        let lab = Lab::new();
        let text = page(name);
        written(&lab, &text);
        for (_, body) in blocks(&text).iter().filter(|(info, _)| info == "console") {
            for line in body.lines().filter_map(|line| line.strip_prefix("$ preflight ")) {
                let line = line.split(" #").next().unwrap_or_default().trim();
                let (line, file) = line.split_once(" > ").map_or((line, None), |(line, file)| (line, Some(file)));
                let ran = lab.run(line.split_whitespace());
                assert!(matches!(ran.code, 0 | 1 | 3), "{name}: preflight {line}: {}\n{}", ran.code, ran.stderr);
                if let Some(file) = file {
                    lab.write(file, &ran.stdout);
                }
                run += 1;
            }
        }
    }
    assert!(run >= 8, "{run}");
}

/// The sample in the README is what its command prints.
#[test]
fn the_sample_output_is_real() {
    let lab = Lab::new();
    lab.write("docs/example/host.json", &page("docs/example/host.json"));
    let sample = blocks(&page("README.md")).into_iter().find(|(info, _)| info == "text").expect("a sample").1;
    let (command, output) = sample.split_once('\n').unwrap();
    let arguments = command.strip_prefix("$ preflight ").expect("a command");
    assert!(arguments.ends_with(" --snapshot docs/example/host.json"), "{command}");
    let ran = lab.run(arguments.split_whitespace());
    assert!(output == ran.stdout, "the README shows something else than its command prints:\n{}", ran.stdout);
}

/// Seen failing with a title changed in `checks/`.
#[test]
fn the_reference_pages_are_current() {
    for name in ["checks", "facts"] {
        let ran = Lab::new().run(["generate", name]);
        assert!(ran.code == 0 && ran.stdout.lines().count() > 50, "{}", ran.stderr);
        assert!(
            page(&format!("docs/{name}.md")) == ran.stdout,
            "docs/{name}.md is old: run `cargo run -- generate {name} > docs/{name}.md`"
        );
    }
}

#[test]
fn the_catalogue_page_names_every_code_of_lint() {
    let text = page("docs/catalogue.md");
    for code in Code::ALL {
        let row = format!("| `{code}` | {} |", code.about());
        assert!(text.contains(&row), "docs/catalogue.md lacks: {row}");
    }
    let rows = text.split("| code | mistake |").nth(1).unwrap().lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, Code::ALL.len());
}

/// Links within the repository lead somewhere, headings included.
#[test]
fn links_lead_somewhere() {
    let mut followed = 0;
    for name in pages() {
        let text = page(&name);
        let folder = Path::new(&name).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { name.clone() } else { folder.join(file).display().to_string() };
            assert!(repository().join(&target).exists(), "{name}: {link}");
            if let Some(heading) = heading {
                assert!(headings(&page(&target)).contains(heading), "{name}: no heading for {link}");
            }
            followed += 1;
        }
    }
    assert!(followed > 60, "{followed}");
}

/// The anchors of a page's headings, as code hosts make them: lower case, blanks as hyphens, other signs left out.
fn headings(text: &str) -> BTreeSet<String> {
    let plain: String = {
        let mut inside = false;
        let keep = |line: &&str| {
            inside ^= line.starts_with("```");
            !inside
        };
        text.lines().filter(keep).collect::<Vec<_>>().join("\n")
    };
    let headings = plain.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The checklists name files and tests; both must be there. A name in backquotes that ends in `.rs`, `.toml`, `.md` or `/` is
/// a path, one after "test" is a test's name.
#[test]
fn the_architecture_names_what_exists() {
    let text = page("docs/architecture.md");
    let mut sources = String::new();
    gather(&repository().join("src"), &mut sources);
    gather(&repository().join("tests"), &mut sources);
    let (mut paths, mut tests) = (0, 0);
    let words: Vec<&str> = text.split('`').collect();
    for (index, word) in words.iter().enumerate().skip(1).step_by(2) {
        let is_path = word.ends_with('/') || ["rs", "toml", "md"].iter().any(|ending| has_ending(word, ending));
        if is_path && !word.contains(['*', ' ', '<', '{']) && word.starts_with(|c: char| c.is_ascii_lowercase()) {
            let placeholder = word.chars().any(|c| c.is_ascii_uppercase()) && !has_ending(word, "md");
            assert!(placeholder || repository().join(word).exists(), "docs/architecture.md: there is no {word}");
            paths += 1;
        } else if words[index - 1].trim_end().to_lowercase().ends_with("test") {
            assert!(sources.contains(&format!("fn {word}(")), "docs/architecture.md: there is no test {word}");
            tests += 1;
        }
    }
    assert!(paths > 20 && tests > 10, "{paths} paths, {tests} tests");
}

/// Who reads of a guarantee can run its test. A name in backquotes with two underscores is one, whole or, as the runner takes
/// it, a part. Seen failing with a name misspelt.
#[test]
fn the_tests_of_the_guarantees_exist() {
    let mut sources = String::new();
    gather(&repository().join("src"), &mut sources);
    gather(&repository().join("tests"), &mut sources);
    let functions: Vec<&str> = sources
        .split("fn ")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .collect();
    let text = page("docs/guarantees.md");
    let spans = text.split('`').skip(1).step_by(2).flat_map(|span| span.split([' ', '\n', ':', '.', '…']));
    let names: Vec<&str> = spans
        .filter(|word| word.matches('_').count() > 1 && !word.contains(|c: char| c == '=' || c.is_ascii_uppercase()))
        .collect();
    for name in &names {
        assert!(
            functions.iter().any(|function| function.contains(name)),
            "docs/guarantees.md: there is no test {name}"
        );
    }
    assert!(names.len() > 40, "{names:?}");
}

fn gather(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
