//! A folder of histories whose verdicts are known.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use potter_jepsen::{Budget, Error, ErrorKind, Result, Spec};

use crate::{check, expected, prepare};

/// Checks every line of `folder/verdicts.tsv` and prints what came of it.
pub(crate) fn check_all(folder: &Path, budget: &Budget) -> Result<ExitCode> {
    let list = folder.join("verdicts.tsv");
    let text = std::fs::read_to_string(&list).map_err(|error| {
        Error::new(ErrorKind::Read, format!("{} can't be read: {error}", list.display()))
    })?;
    let (mut right, mut wrong) = (0, 0);
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match one(folder, line, budget) {
            Ok(said) => {
                right += 1;
                println!("ok        {said}");
            }
            Err(said) => {
                wrong += 1;
                println!("MISMATCH  {said}");
            }
        }
    }
    println!("{right} as expected, {wrong} not");
    Ok(ExitCode::from(u8::from(wrong > 0 || right == 0)))
}

fn one(folder: &Path, line: &str, budget: &Budget) -> std::result::Result<String, String> {
    let mut fields = line.split('\t').map(str::trim);
    let (Some(file), Some(model), Some(wanted)) = (fields.next(), fields.next(), fields.next())
    else {
        return Err(format!("{line}: a line is file, model and expected, with tabs between"));
    };
    let begin = Instant::now();
    let found = Spec::parse(model).and_then(|spec| {
        let loaded = prepare(&folder.join(file), &spec)?;
        check(&loaded, &spec, budget)
    });
    let took = begin.elapsed().as_secs_f64() * 1000.0;
    let analysis = found.map_err(|error| format!("{file}: it can't be checked: {error}"))?;
    let says = expected::summary(&analysis);
    match expected::compare(&analysis, wanted) {
        Ok(()) => Ok(format!("{file}: {says} ({took:.1} ms)")),
        Err(why) => Err(format!("{file}: {says}; expected: {wanted}; but {why} ({took:.1} ms)")),
    }
}
