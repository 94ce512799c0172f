//! Which steps are run and undone, in which order, whatever they answer.

use std::time::Duration;

use async_trait::async_trait;
use potter_saga::{
    BeforePivot, Finished, Flow, Saga, SagaStatus, Step, StepContext, StepError, StepStatus, Value,
};

use crate::engines::{Fresh, on_every_engine};
use crate::script::{Act, Script, Three, builder, ended, run};

async fn all_steps_and_the_result(fresh: Fresh) {
    let script = Script::default();
    let (orchestrator, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Completed);
    assert_eq!(script.journal(), ["run a", "run b", "run c"]);
    assert_eq!(orchestrator.result::<Three>(record.id).await.unwrap(), Some(4));
    let history = orchestrator.history(record.id).await.unwrap();
    let words: Vec<_> = history.iter().map(|row| (row.step_name.as_str(), row.status)).collect();
    assert_eq!(
        words,
        [("a", StepStatus::Completed), ("b", StepStatus::Completed), ("c", StepStatus::Completed)]
    );
}

async fn a_rejection_undoes_in_reverse_order(fresh: Fresh) {
    let script = Script::default().on("run c", [Act::Reject]);
    let (_, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Compensated);
    assert_eq!(script.journal(), ["run a", "run b", "run c", "undo b", "undo a"]);
}

async fn a_retry_is_made_again_and_shown(fresh: Fresh) {
    let script = Script::default().on("run b", [Act::Retry, Act::Retry]);
    let (orchestrator, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Completed);
    assert_eq!(script.journal(), ["run a", "run b", "run b", "run b", "run c"]);
    let history = orchestrator.history(record.id).await.unwrap();
    let attempts: Vec<_> =
        history.iter().filter(|row| row.step_name == "b").map(|row| row.retry_attempt).collect();
    assert_eq!(attempts, [0, 1, 2]);
}

async fn out_of_attempts_without_an_effect_needs_no_undo_of_its_own(fresh: Fresh) {
    let script = Script::default().on("run b", [Act::Retry, Act::Retry, Act::Retry]);
    let (_, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Compensated);
    assert_eq!(script.journal(), ["run a", "run b", "run b", "run b", "undo a"]);
}

async fn an_unknown_outcome_is_asked_about(fresh: Fresh) {
    let script = Script::default().on("run b", [Act::Unknown]).on("probe b", [Act::ProbeDone]);
    let (orchestrator, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Completed);
    let history = orchestrator.history(record.id).await.unwrap();
    let unknown: Vec<_> = history.iter().map(|row| row.outcome_unknown).collect();
    assert_eq!(unknown, [false, true, false, false], "the first attempt of b: {history:?}");
    assert_eq!(
        script.journal(),
        ["run a", "run b", "probe b", "run c"],
        "it was done: not run again"
    );
}

async fn what_stays_unknown_is_undone_too(fresh: Fresh) {
    let script = Script::default().on("run b", [Act::Unknown, Act::Unknown, Act::Unknown]);
    let (_, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Compensated);
    let journal = script.journal();
    assert_eq!(journal[journal.len() - 2..], ["undo b (uncertain)", "undo a"], "{journal:?}");
}

async fn a_known_miss_after_an_unknown_needs_no_undo(fresh: Fresh) {
    let script = Script::default()
        .on("run b", [Act::Unknown, Act::Reject])
        .on("probe b", [Act::ProbeNotDone]);
    let (_, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Compensated);
    assert_eq!(script.journal(), ["run a", "run b", "probe b", "run b", "undo a"]);
}

async fn a_rejection_after_an_unknown_is_not_believed(fresh: Fresh) {
    // The first attempt may have taken the last item: that the second finds none says nothing.
    let script = Script::default().on("run b", [Act::Unknown, Act::Reject]);
    let (_, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Compensated);
    let expected = ["run a", "run b", "probe b", "run b", "undo b (uncertain)", "undo a"];
    assert_eq!(script.journal(), expected);
}

async fn a_time_out_is_unknown(fresh: Fresh) {
    let script = Script::default().on("run a", [Act::Hang]).on("probe a", [Act::ProbeDone]);
    let (_, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Completed);
    assert_eq!(script.journal(), ["run a", "probe a", "run b", "run c"]);
}

async fn a_time_out_of_a_local_step_is_no_effect(fresh: Fresh) {
    let script = Script::default().on("run a", [Act::Hang, Act::Reject]);
    let (_, record) = run(&fresh, Three { local: true, ..Three::new(&script) }).await;
    ended(&record, SagaStatus::Compensated);
    assert_eq!(script.journal(), ["run a", "run a"], "nothing to ask about, nothing to undo");
}

async fn after_the_pivot_steps_are_only_retried(fresh: Fresh) {
    let script = Script::default()
        .on("run c", [Act::Retry, Act::Retry, Act::Retry, Act::Retry, Act::Unknown]);
    let (_, record) = run(&fresh, Three { pivot: true, ..Three::new(&script) }).await;
    ended(&record, SagaStatus::Completed);
    assert!(script.journal().iter().all(|call| !call.starts_with("undo")));
}

async fn a_rejected_pivot_compensates(fresh: Fresh) {
    let script = Script::default().on("run b", [Act::Reject]);
    let (_, record) = run(&fresh, Three { pivot: true, ..Three::new(&script) }).await;
    ended(&record, SagaStatus::Compensated);
    assert_eq!(script.journal(), ["run a", "run b", "undo a"]);
}

async fn an_unknown_pivot_waits_for_a_hand(fresh: Fresh) {
    let script = Script::default().on("run b", [Act::Unknown, Act::Unknown, Act::Unknown]);
    let (_, record) = run(&fresh, Three { pivot: true, ..Three::new(&script) }).await;
    ended(&record, SagaStatus::Failed);
    assert!(record.parked.unwrap().contains("point of no return"));
    assert!(
        script.journal().iter().all(|call| !call.starts_with("undo")),
        "never undone by assuming"
    );
}

async fn an_undo_is_tried_again_and_then_waits_for_a_hand(fresh: Fresh) {
    let script = Script::default()
        .on("run c", [Act::Reject])
        .on("undo b", [Act::Retry, Act::Panic])
        .on("undo a", [Act::Retry, Act::Retry]);
    let (orchestrator, record) = run(&fresh, Three::new(&script)).await;
    ended(&record, SagaStatus::Failed);
    let undos = |journal: Vec<String>| {
        journal.into_iter().filter(|call| call.starts_with("undo")).collect::<Vec<_>>()
    };
    assert_eq!(undos(script.journal()), ["undo b", "undo b"], "the panic parked it");

    drop(orchestrator);
    let orchestrator = crate::script::orchestrator(&fresh, Three::new(&script)).await;
    let running = orchestrator.spawn().await.unwrap();
    orchestrator.resume(record.id).await.unwrap();
    let record = orchestrator.wait(record.id, std::time::Duration::from_secs(10)).await.unwrap();
    running.shutdown().await.unwrap();
    ended(&record, SagaStatus::Compensated);
    assert_eq!(
        undos(script.journal()),
        ["undo b", "undo b", "undo b", "undo a", "undo a", "undo a"]
    );
}

struct Eight;

#[async_trait]
impl Step for Eight {
    const NAME: &'static str = "eight";
    type Input = (u32, u32, u32, u32, u32, u32, u32, String);
    type Output = String;

    async fn run(&self, _: &mut StepContext, input: Self::Input) -> Result<String, StepError> {
        Ok(format!("{input:?}"))
    }
}

struct Wide;

impl Saga for Wide {
    const NAME: &'static str = "wide";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = String;

    fn define<'s>(
        &self,
        n: Value<'s, u32>,
        mut flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, String> {
        let plus = |more| n.map(move |n| n + more);
        let (b, c, d, e, f, g) = (plus(1), plus(2), plus(3), plus(4), plus(5), plus(6));
        let text = n.map(|n| n.to_string());
        let eight = flow.step_without_undo(Eight, (&n, &b, &c, &d, &e, &f, &g, &text));
        flow.finish(eight)
    }
}

async fn a_step_takes_eight_values(fresh: Fresh) {
    let orchestrator = builder(&fresh).await.register(&Wide).unwrap().build();
    let running = orchestrator.spawn().await.unwrap();
    let started = orchestrator.start::<Wide>(&1).await.unwrap();
    let record = orchestrator.wait(started.id, Duration::from_secs(20)).await.unwrap();
    running.shutdown().await.unwrap();
    ended(&record, SagaStatus::Completed);
    let result = orchestrator.result::<Wide>(record.id).await.unwrap();
    assert_eq!(result.as_deref(), Some(r#"(1, 2, 3, 4, 5, 6, 7, "1")"#));
}

on_every_engine! {
    a_step_takes_eight_values;
    all_steps_and_the_result;
    a_rejection_undoes_in_reverse_order;
    a_retry_is_made_again_and_shown;
    out_of_attempts_without_an_effect_needs_no_undo_of_its_own;
    an_unknown_outcome_is_asked_about;
    what_stays_unknown_is_undone_too;
    a_known_miss_after_an_unknown_needs_no_undo;
    a_rejection_after_an_unknown_is_not_believed;
    a_time_out_is_unknown;
    a_time_out_of_a_local_step_is_no_effect;
    after_the_pivot_steps_are_only_retried;
    a_rejected_pivot_compensates;
    an_unknown_pivot_waits_for_a_hand;
    an_undo_is_tried_again_and_then_waits_for_a_hand;
}
