//! `preflight tune`: the plan; with `--apply`, the plan carried out.

use crate::subjects::knobs::HostKnobs;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::path::Path;

use super::args::{PlanFormat, TuneArgs};
use super::select::Selection;
use super::watch::Terminal;
use super::{ExitCode, Stop, show, source, transactions};
use crate::apply::recovery;
use crate::apply::{self, Machine, Options, State, Unwatched};
use crate::catalog::Catalogue;
use crate::catalog::os::OsProfile;
use crate::catalog::parameters::Parameters;
use crate::change::files;
use crate::change::files::Existing;
use crate::change::planner::PlanContext;
use crate::change::render;
use crate::change::render::{Head, Look, WhyOf};
use crate::change::{Kind, Plan};
use crate::drift::unfinished;
use crate::facts::snapshot::Snapshot;
use crate::facts::{Facts, Layer};
use crate::host::units;
use crate::host::{self, Host};
use crate::judge::Judge;
use crate::report::terminal::DEFAULT_WIDTH;
use crate::subjects::derive::derive;
use crate::subjects::firewall::model::boot;
use crate::subjects::firewall::read::peers;
use crate::subjects::gather;
use crate::subjects::gather::Gathered;
use crate::subjects::kernel::tuned;
use crate::subjects::planner;
use crate::subjects::script;
use crate::subjects::truth::{HostTruth, Rehearsal};

pub(super) fn run(args: &TuneArgs) -> Result<ExitCode, Stop> {
    validate(args)?;
    let host = source::host(args.root.as_deref())?;
    let catalogue = source::catalogue(&host, args.profile.of_host(), &args.profile.set)?;
    let selection = Selection::new(&args.profile, false);
    selection.validate(&catalogue)?;
    if args.apply {
        clear(args, &host)?;
    }
    let Gathered { snapshot, boot_sources } = source::gather(&host, &catalogue, &selection);
    let os = gather::os_of(&snapshot.facts);
    let rehearsal = Rehearsal::new(&host, os, boot_sources);
    let mut plan = plan(args, &host, &catalogue, &snapshot, &rehearsal, &selection);
    plan.unfinished = unfinished::look(&host, args.state.state_dir.as_deref());
    emit_compose(args, &plan)?;
    let why = Reasons(&catalogue);
    let head = Head { profile: &catalogue.name, host: &snapshot.host.name, why: &why, allow: &args.allow };
    if args.apply { carry_out(args, &host, os, &plan, &head) } else { show(args, &plan, &head) }
}

fn validate(args: &TuneArgs) -> Result<(), Stop> {
    if let Some(unknown) = args.allow.iter().find(|id| !planner::is_allowable(id)) {
        let known = format!(
            "{}, {}, {}, owner:tuned, owner:/PATH of a file that decides",
            planner::ALLOW_DAEMON_JSON,
            planner::ALLOW_SSHD,
            planner::ALLOW_PEERS
        );
        return Err(Stop::usage(format!("--allow {unknown}: there is no such conflict\nhint: known are {known}")));
    }
    // Whoever asks for a script wants to read it first.
    if args.apply && matches!(args.format, PlanFormat::Markdown | PlanFormat::Script) {
        return Err(Stop::usage("--format markdown and script show a plan; with --apply there are terminal and json"));
    }
    // An image cuts nobody off, and the timer of this host knows nothing of it.
    if args.root.is_some() && args.confirm_within.is_some_and(|window| !window.is_zero()) {
        return Err(Stop::usage(
            "--confirm-within: the files of an image take effect at once, there is nothing to confirm",
        ));
    }
    Ok(())
}

fn plan(
    args: &TuneArgs,
    host: &Host,
    catalogue: &Catalogue,
    snapshot: &Snapshot,
    rehearsal: &Rehearsal<'_>,
    selection: &Selection,
) -> Plan {
    let os = rehearsal.os;
    let wishes = Judge::new(catalogue, snapshot, os, derive).wishes(&|id, check| selection.wants(id, check));
    let existing = existing(host, &catalogue.parameters, &snapshot.facts);
    let context = PlanContext {
        facts: &snapshot.facts,
        parameters: &catalogue.parameters,
        os,
        is_live: host.is_live(),
        allow: &args.allow,
        existing: &existing,
        would_lose: &|text, name| rehearsal.would_lose(text, name),
    };
    let asked = planner::Asked {
        recovery: &|| recovery::look(host),
        connected: &|intent| peers::look(host, intent),
        guard_service: &|| units::runs_systemd(host).then(|| units::is_started(host, boot::NAME)),
    };
    planner::plan(&wishes, &context, &asked)
}

/// The files that a plan may change, as they are. One that cannot be read is left out: staging it will say why.
fn existing(host: &Host, parameters: &Parameters, facts: &Facts) -> Existing {
    let known = [files::SYSCTL, files::TMPFILES, files::OPENRC, files::DAEMON_JSON].into_iter();
    let recovery = [recovery::SYSTEMD, recovery::OPENRC].map(|form| [form.file, form.link]);
    let guard = [boot::FILE, boot::IPTABLES[0], boot::IPTABLES[1], boot::UNIT, boot::OPENRC, boot::OPENRC_LINK];
    let known = known.chain(recovery.into_iter().flatten()).chain(guard).chain(boot::UNIT_LINKS);
    let paths = known.chain(files::OPENRC_LINKS).map(str::to_owned);
    let paths = paths.chain(parameters.list("services").iter().map(|service| files::unit_drop_in(service)));
    let huge_pages = facts.get("thp.enabled", Layer::Boot);
    let tuned = huge_pages.filter(|fact| fact.source.contains("/tuned/")).map(|_| tuned::files(host));
    let paths = paths.chain(tuned.into_iter().flatten());
    let read = |path: String| {
        let text = host.read_optional(&path).ok()??;
        Some((path, text))
    };
    Existing(paths.filter_map(read).collect::<BTreeMap<_, _>>())
}

fn emit_compose(args: &TuneArgs, plan: &Plan) -> Result<(), Stop> {
    let Some(path) = &args.emit_compose else { return Ok(()) };
    let text = render::compose(plan).unwrap_or_else(|| "# The containers already have what they need.\n".to_owned());
    host::output::write(path, text.as_bytes()).map_err(|error| Stop::unwritten(path.display(), &error))
}

/// The reasons of the catalogue.
#[derive(Debug)]
struct Reasons<'a>(&'a Catalogue);

impl WhyOf for Reasons<'_> {
    fn why(&self, id: &str) -> Option<String> {
        self.0.checks.iter().find(|check| check.id == id).map(|check| check.why.clone())
    }
}

fn show(args: &TuneArgs, plan: &Plan, head: &Head<'_>) -> Result<ExitCode, Stop> {
    let mut bytes = Vec::new();
    match args.format {
        PlanFormat::Json => transactions::json(plan, &mut bytes)?,
        PlanFormat::Markdown => render::markdown(plan, head, &mut bytes)?,
        PlanFormat::Script => script::script(plan, head, &mut bytes)?,
        PlanFormat::Terminal => {
            let look = look(std::io::stdout().is_terminal());
            render::terminal(plan, head, look, &mut bytes)?;
            if !plan.changes.is_empty() {
                let needed = plan.changes.iter().filter(|change| change.kind == Kind::Needed).count();
                let (total, target) = (plan.changes.len(), plan.changes.len() - needed);
                let noun = if total == 1 { "change" } else { "changes" };
                let words = format!("\n{total} {noun} ({needed} needed, {target} target). Nothing was changed.");
                render::wrapped(look, "", "", &words, &mut bytes)?;
                render::wrapped(look, "", "", "To carry them out: preflight tune --apply", &mut bytes)?;
            }
        }
    }
    show::print(&bytes)?;
    Ok(ExitCode::Success)
}

fn look(is_terminal: bool) -> Look {
    let width = if is_terminal { show::terminal_width() } else { DEFAULT_WIDTH };
    Look { width, unicode: show::is_unicode(is_terminal) }
}

/// What a killed run left is ended first.
fn clear(args: &TuneArgs, host: &Host) -> Result<(), Stop> {
    if host.is_live() && !nix::unistd::geteuid().is_root() {
        let message =
            "changing this host needs root\nhint: `preflight tune` without --apply shows the plan to everybody";
        return Err(Stop::Change(ExitCode::CannotTell, anyhow::anyhow!(message)));
    }
    let truth = HostTruth { host, os: transactions::os_of(host) };
    let machine = Machine::open(host, args.state.state_dir.as_deref())?;
    let knobs = HostKnobs::of(&machine);
    for outcome in apply::clear(&machine.env(&knobs, &truth, &Unwatched))? {
        let tx = outcome.tx.map(|tx| tx.to_string()).unwrap_or_default();
        let state = outcome.state.map_or("nothing done", State::words);
        // The session may be gone; the work goes on.
        let _ = writeln!(anstream::stderr(), "note: transaction {tx} was cut short; first of all it is {state}");
    }
    Ok(())
}

fn carry_out(args: &TuneArgs, host: &Host, os: &OsProfile, plan: &Plan, head: &Head<'_>) -> Result<ExitCode, Stop> {
    let is_console = is_local_console();
    let window = apply::window(plan, args.confirm_within, is_console);
    // What is about to be done, for whoever looks on; afterwards the outcome names every change.
    let is_seen = args.format == PlanFormat::Terminal && std::io::stderr().is_terminal();
    if is_seen && !plan.changes.is_empty() {
        let mut words = Vec::new();
        let look = look(true);
        render::terminal(plan, head, look, &mut words)?;
        if let Some(window) = window {
            let back = format!("\nIt is rolled back after {} s unless it is confirmed.", window.as_secs());
            render::wrapped(look, "", "", &back, &mut words)?;
        }
        // The plan is words here; the data is what came of it.
        let _ = anstream::stderr().write_all(&words);
    }
    // Where something waits for its confirm there is nothing to consent to.
    let is_free = plan.unfinished.is_empty();
    if is_free && !plan.changes.is_empty() && !args.yes && !is_consented()? {
        return Err(Stop::usage("nothing was changed"));
    }
    let truth = HostTruth { host, os };
    let watch = Terminal::new()?;
    let machine = Machine::open(host, args.state.state_dir.as_deref())?;
    let knobs = HostKnobs::of(&machine);
    let env = machine.env(&knobs, &truth, &watch);
    let options = Options {
        profile: head.profile.to_owned(),
        allow: args.allow.clone(),
        confirm_within: window,
        wait: window.is_some() && !args.no_wait && std::io::stdin().is_terminal(),
        settle: args.settle,
    };
    let outcome = apply::apply(plan, &options, &env);
    watch.done();
    transactions::show_one(&outcome?, args.format == PlanFormat::Json)
}

/// On a terminal `--apply` is asked for once more; elsewhere the flag is the consent.
fn is_consented() -> Result<bool, Stop> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(true);
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "\nCarry this out? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| Stop::usage(format!("nothing was changed: no answer: {}", host::describe(&error))))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether the person sits at the machine: a virtual console or a serial line, not a pseudo-terminal.
fn is_local_console() -> bool {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return false;
    }
    let name = nix::unistd::ttyname(stdin).ok();
    let name = name.as_deref().and_then(Path::to_str).unwrap_or_default();
    let number = |prefix: &str| {
        let rest = name.strip_prefix(prefix).unwrap_or_default();
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric())
    };
    name == "/dev/console" || number("/dev/tty")
}
