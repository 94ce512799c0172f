//! Measures checkers beside each other. `./run` in this folder does it all; the commands are
//!
//! ```text
//! bench-jepsen generate DIR          writes the workloads, in the format of Jepsen's logs
//! bench-jepsen ours MODEL FILE…      checks with potter-jepsen
//! bench-jepsen todc FILE…            checks CAS registers with todc-utils
//! bench-jepsen stateright FILE       checks a register with stateright's tester
//! bench-jepsen append COUNT          list-append transactions, made in memory
//! ```
//!
//! Each prints milliseconds for the check alone (reading the file is not in it), those of the worst
//! file, the verdict, and the largest resident size of the process in MiB.

mod generate;

use std::time::{Duration, Instant};

use potter_jepsen::{Budget, Spec, load};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["generate", folder] => generate::all(folder),
        ["ours", model, ref files @ ..] => ours(model, files),
        ["todc", ref files @ ..] => todc(files),
        ["stateright", file] => stateright(file),
        ["append", count] => append(count.parse().expect("a count")),
        _ => panic!("generate DIR | ours MODEL FILE… | todc FILE… | stateright FILE | append COUNT"),
    }
}

/// VmHWM of this process.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn report(times: &[Duration], verdict: &str) {
    let ms = |time: &Duration| time.as_secs_f64() * 1000.0;
    let sum: f64 = times.iter().map(ms).sum();
    let worst = times.iter().map(ms).fold(0.0, f64::max);
    println!("{sum:.3}\t{worst:.3}\t{verdict}\t{}", resident_mib());
}

fn merge<'v>(all: &mut Vec<&'v str>, verdict: &'v str) -> String {
    all.push(verdict);
    let count = |name| all.iter().filter(|v| **v == name).count();
    match all.len() {
        1 => verdict.to_owned(),
        _ => format!("{} valid, {} invalid, {} unknown", count("valid"), count("invalid"), count("unknown")),
    }
}

fn ours(model: &str, files: &[&str]) {
    let (mut times, mut verdicts, mut said) = (Vec::new(), Vec::new(), String::new());
    for file in files {
        let file = std::io::BufReader::new(std::fs::File::open(file).expect("the file"));
        let loaded = load(file, None).expect("a history");
        let checker = Spec::parse(model).and_then(|s| s.checker(loaded.format)).expect("a model");
        let budget = Budget::new(Duration::from_secs(60), 8 << 30);
        let begin = Instant::now();
        let analysis = checker.check(&loaded.history, &budget).expect("an analysis");
        times.push(begin.elapsed());
        said = merge(&mut verdicts, analysis.verdict.name());
    }
    report(&times, &said);
}

fn todc(files: &[&str]) {
    use todc_utils::WGLChecker;
    use todc_utils::specifications::etcd::{EtcdSpecification, history_from_log};
    let (mut times, mut verdicts, mut said) = (Vec::new(), Vec::new(), String::new());
    for file in files {
        let history = history_from_log((*file).to_owned());
        let begin = Instant::now();
        let valid = WGLChecker::<EtcdSpecification>::is_linearizable(history);
        times.push(begin.elapsed());
        said = merge(&mut verdicts, if valid { "valid" } else { "invalid" });
    }
    report(&times, &said);
}

fn stateright(file: &str) {
    use potter_jepsen::EventKind;
    use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
    use stateright::semantics::{ConsistencyTester, LinearizabilityTester};
    let file = std::io::BufReader::new(std::fs::File::open(file).expect("the file"));
    let loaded = load(file, None).expect("a history");
    let begin = Instant::now();
    let mut tester = LinearizabilityTester::new(Register(0_i64));
    for event in loaded.history.events() {
        let process = event.process.0;
        let value = event.value.as_int().unwrap_or(0);
        let step = match (event.kind, &*event.f) {
            (EventKind::Invoke, "write") => tester.on_invoke(process, RegisterOp::Write(value)),
            (EventKind::Invoke, _) => tester.on_invoke(process, RegisterOp::Read),
            (EventKind::Ok, "write") => tester.on_return(process, RegisterRet::WriteOk),
            (EventKind::Ok, _) => tester.on_return(process, RegisterRet::ReadOk(value)),
            _ => continue,
        };
        step.expect("a well-formed history");
    }
    let valid = tester.serialized_history().is_some();
    report(&[begin.elapsed()], if valid { "valid" } else { "invalid" });
}

fn append(count: usize) {
    let history = generate::append(count);
    let checker = Spec::parse("list-append").and_then(|s| s.checker(potter_jepsen::Format::Edn));
    let checker = checker.expect("a model");
    let before = resident_mib();
    let begin = Instant::now();
    let budget = Budget::new(Duration::from_secs(60), 8 << 30);
    let analysis = checker.check(&history, &budget).expect("an analysis");
    let time = begin.elapsed();
    report(&[time], analysis.verdict.name());
    eprintln!("the history itself: {before} MiB");
}
