//! `--help` of every subcommand, pinned: a change of the command line is a visible diff.

use crate::support::Lab;

/// Seen failing with a `///` at arguments that several commands share: it took the place of what the command is for.
#[test]
fn each_command_says_the_same_of_itself_as_the_list_does() {
    let lab = Lab::new();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let list = lab.run(["--help"]).stdout;
    let commands = list.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let mut about: Vec<(String, String)> = Vec::new();
    for line in commands.lines() {
        let first = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split_once(' '));
        if let Some((name, text)) = first {
            about.push((name.to_owned(), words(text)));
        } else {
            let (_, text) = about.last_mut().unwrap();
            *text = words(&format!("{text} {line}"));
        }
    }
    assert!(about.len() > 10, "{about:?}");
    for (name, text) in about.iter().filter(|(name, _)| name != "help") {
        let help = lab.run([name.as_str(), "--help"]).stdout;
        assert_eq!(words(help.split_once("\n\n").unwrap().0), *text, "{name}");
    }
}

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
        &["report", "render", "--help"],
    ] {
        let ran = lab.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
        all.extend(["$ preflight ", &args.join(" "), "\n", &ran.stdout, "\n"]);
    }
    insta::assert_snapshot!(all, @"
    $ preflight --help
    Checks whether a Linux host is ready for a workload, says how to fix what is
    not, and can make the changes

    Usage: preflight [OPTIONS] <COMMAND>

    Commands:
      check     Report whether this host is ready, and what to do where it is not
      tune      Show what would be changed to make this host ready; with --apply,
                change it
      confirm   Keep what an apply changed
      rollback  Undo what an apply changed
      recover   Finish or roll back what a crash or a power cut interrupted
      history   Show what was changed on this host, newest first
      verify    Compare what was applied with what is there now
      facts     Print what was read on this host, as a snapshot that can be judged
                elsewhere
      explain   Explain a check: what it requires, why, and how to fix it
      report    Show reports that `check --format json` wrote
      list      List checks, profiles, OS profiles, knobs, facts or parameters
      lint      Find mistakes in profiles, files of checks, waivers and OS profiles
      generate  Print shell completions, man pages, JSON Schemas, reference pages
      help      Print this message or the help of the given subcommand(s)

    Options:
          --color <WHEN>  When to colour the output; NO_COLOR and CLICOLOR_FORCE are
                          honoured [default: auto] [possible values: auto, always,
                          never]
      -h, --help          Print help
      -V, --version       Print version

    Exit codes:
      0   ready enough, or the command succeeded
      1   not ready, or verify found drift
      2   nothing changed: wrong usage, bad profile or snapshot, conflict not
      allowed
      3   cannot tell, or not permitted
      4   an apply failed and was rolled back
      5   another transaction is pending, or the lock is held
      6   a rollback could not restore everything
      7   applied, waiting for confirm
      70  internal error, or the report could not be written

    $ preflight check --help
    Report whether this host is ready, and what to do where it is not

    Usage: preflight check [OPTIONS]

    Options:
          --color <WHEN>
              When to colour the output; NO_COLOR and CLICOLOR_FORCE are honoured
              
              [default: auto]
              [possible values: auto, always, never]

      -h, --help
              Print help (see a summary with '-h')

    Requirements:
      -p, --profile <NAME|FILE>
              The profile: a name, or a file when it holds a `/` or ends in `.toml`
              [default: redis-sentinel]

          --set <KEY=VALUE>
              Set a parameter of the profile: `--set maxmemory=1GiB`; repeatable

          --only <GLOB>
              Only these findings or checks; `*` and `?` as in file names;
              repeatable

          --skip <GLOB>
              Not these findings or checks; repeatable

          --waivers <FILE>
              Accept the findings that this file names, each with owner, reason and
              last day

    Host:
          --root <DIR>
              Judge the files under a directory (an image, a fixture) instead of the
              running host

          --snapshot <FILE>
              Judge a snapshot that `preflight facts` wrote, by its own profile when
              none is given; `-` reads standard input

          --deep
              Also measure what takes time: the cost of the clock source, CPU steal,
              the delay of writes to the disk

          --wait <DURATION>
              Check again until the host is ready or the time is over: `--wait 30s`

    Output:
      -f, --format <FORMAT>
              How to show the report

              Possible values:
              - terminal: For people: the verdict, a table of findings, reasons and
                next steps
              - json:     The report as data, by the published schema
                `preflight.report/1`
              
              [default: terminal]

      -o, --output <FILE>
              Write the report to a file instead of standard output

      -q, --quiet
              Leave out what passes and what does not apply

      -v, --verbose
              Show every finding in a line of its own, and all evidence: every
              layer, every source, every reason

          --fail-on <LEVEL>
              The lowest level at which the exit code is not 0

              Possible values:
              - blocker:     Only failed blockers
              - required:    Failed blockers and required checks
              - recommended: Failed recommended checks too
              - warn:        Warnings too
              - never:       Nothing: the exit code is 0 whatever was found
              
              [default: required]

    $ preflight facts --help
    Print what was read on this host, as a snapshot that can be judged elsewhere

    Usage: preflight facts [OPTIONS]

    Options:
          --color <WHEN>  When to colour the output; NO_COLOR and CLICOLOR_FORCE are
                          honoured [default: auto] [possible values: auto, always,
                          never]
      -h, --help          Print help

    Requirements:
      -p, --profile <NAME|FILE>  The profile: a name, or a file when it holds a `/`
                                 or ends in `.toml` [default: redis-sentinel]
          --set <KEY=VALUE>      Set a parameter of the profile: `--set
                                 maxmemory=1GiB`; repeatable
          --only <GLOB>          Only these findings or checks; `*` and `?` as in
                                 file names; repeatable
          --skip <GLOB>          Not these findings or checks; repeatable
          --root <DIR>           Read the files under a directory instead of the
                                 running host
          --deep                 Also measure what takes time
      -o, --output <FILE>        Write the snapshot to a file instead of standard
                                 output

    $ preflight explain --help
    Explain a check: what it requires, why, and how to fix it

    Usage: preflight explain [OPTIONS] <ID>

    Arguments:
      <ID>  The id of a check, or of a finding such as `port.free.6379`

    Options:
      -p, --profile <NAME|FILE>  The profile whose settings are shown [default:
                                 redis-sentinel]
          --color <WHEN>         When to colour the output; NO_COLOR and
                                 CLICOLOR_FORCE are honoured [default: auto]
                                 [possible values: auto, always, never]
      -h, --help                 Print help

    $ preflight list --help
    List checks, profiles, OS profiles, knobs, facts or parameters

    Usage: preflight list [OPTIONS] <WHAT>

    Arguments:
      <WHAT>
              What to list

              Possible values:
              - checks:     The checks of the profile, with their severity
              - profiles:   The profiles
              - os:         The OS profiles and the releases they know
              - knobs:      What can be tuned, and to what
              - facts:      All facts, with their type and source
              - parameters: The profile's parameters, with their defaults and ranges

    Options:
      -p, --profile <NAME|FILE>
              The profile whose checks are listed
              
              [default: redis-sentinel]

          --color <WHEN>
              When to colour the output; NO_COLOR and CLICOLOR_FORCE are honoured
              
              [default: auto]
              [possible values: auto, always, never]

      -h, --help
              Print help (see a summary with '-h')

    $ preflight lint --help
    Find mistakes in profiles, files of checks, waivers and OS profiles

    Usage: preflight lint [OPTIONS] <FILE>...

    Arguments:
      <FILE>...  Profiles, files of checks, files of waivers, OS profiles

    Options:
          --color <WHEN>  When to colour the output; NO_COLOR and CLICOLOR_FORCE are
                          honoured [default: auto] [possible values: auto, always,
                          never]
      -h, --help          Print help

    $ preflight generate --help
    Print shell completions, man pages, JSON Schemas, reference pages

    Usage: preflight generate [OPTIONS] <COMMAND>

    Commands:
      completions  A completion script for a shell
      man          Man pages, one file per subcommand
      schema       A JSON Schema
      checks       The reference of all checks, as Markdown
      facts        The reference of all facts, as Markdown
      help         Print this message or the help of the given subcommand(s)

    Options:
          --color <WHEN>  When to colour the output; NO_COLOR and CLICOLOR_FORCE are
                          honoured [default: auto] [possible values: auto, always,
                          never]
      -h, --help          Print help

    $ preflight report render --help
    Show reports as `check` would: the findings, the verdict, the next steps

    Usage: preflight report render [OPTIONS] <FILE>...

    Arguments:
      <FILE>...
              Reports in JSON; `-` reads standard input

    Options:
          --color <WHEN>
              When to colour the output; NO_COLOR and CLICOLOR_FORCE are honoured
              
              [default: auto]
              [possible values: auto, always, never]

      -h, --help
              Print help (see a summary with '-h')

    Output:
      -f, --format <FORMAT>
              How to show the report

              Possible values:
              - terminal: For people: the verdict, a table of findings, reasons and
                next steps
              - json:     The report as data, by the published schema
                `preflight.report/1`
              
              [default: terminal]

      -o, --output <FILE>
              Write the report to a file instead of standard output

      -q, --quiet
              Leave out what passes and what does not apply

      -v, --verbose
              Show every finding in a line of its own, and all evidence: every
              layer, every source, every reason
    ");
}

/// A terminal of the usual width and a pipe both get lines that fit. Seen failing with clap's own width for pipes, 100.
#[test]
fn no_help_is_wider_than_a_terminal() {
    let lab = Lab::new();
    let mut pending: Vec<Vec<String>> = vec![Vec::new()];
    let mut looked_at = 0;
    while let Some(command) = pending.pop() {
        let help = lab.run(command.iter().map(String::as_str).chain(["--help"])).stdout;
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{command:?}: {help}");
        let commands = help.split_once("\nCommands:\n").and_then(|(_, rest)| rest.split("\n\n").next());
        let names = commands.into_iter().flat_map(str::lines).filter(|line| !line.starts_with("   "));
        for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
            pending.push(command.iter().cloned().chain([name.to_owned()]).collect());
        }
        looked_at += 1;
    }
    assert!(looked_at >= 20, "{looked_at}");
}

#[test]
fn the_version_is_the_package_version() {
    assert_eq!(Lab::new().run(["--version"]).stdout, format!("preflight {}\n", env!("CARGO_PKG_VERSION")));
}
