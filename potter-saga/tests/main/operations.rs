//! Starting, cancelling, deadlines, take-over, versions, sagas that can't go on.

use std::task::Poll;
use std::time::Duration;

use potter_core::Json;
use potter_saga::{BeforePivot, ErrorKind, Finished, Flow, Saga, SagaFilter, SagaStatus, Value};

use crate::effects::{Order, Purchase, World, effects, prepare};
use crate::engines::{Fresh, on_every_engine};
use crate::script::{Act, Gate, Script, Scripted, Three, builder, ended, orchestrator, store};

const LIMIT: Duration = Duration::from_secs(20);

async fn sixty_four_starts_with_one_key_are_one_saga(fresh: Fresh) {
    let script = Script::default();
    let orchestrator = orchestrator(&fresh, Three::new(&script)).await;
    let running = orchestrator.spawn().await.unwrap();
    let starts = (0..64).map(|_| {
        let orchestrator = orchestrator.clone();
        tokio::spawn(async move { orchestrator.start::<Three>(&7).key("order-42").await.unwrap() })
    });
    let started: Vec<_> =
        futures::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(started.iter().filter(|one| one.created).count(), 1);
    assert!(started.iter().all(|one| one.id == started[0].id));
    ended(&orchestrator.wait(started[0].id, LIMIT).await.unwrap(), SagaStatus::Completed);
    let other = orchestrator.start::<Three>(&8).key("order-42").await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::KeyReused);
    assert!(other.to_string().contains("order-42"), "{other}");
    running.shutdown().await.unwrap();
    assert_eq!(script.journal(), ["run a", "run b", "run c"]);
}

async fn starts_with_one_id_run_once(fresh: Fresh) {
    let gate = Gate::new();
    let script = Script::default().on("run a", [Act::Gate(gate.clone())]);
    let orchestrator = orchestrator(&fresh, Three::new(&script)).await;
    let running = orchestrator.spawn().await.unwrap();
    let id = potter_core::new_id();
    let first = orchestrator.start::<Three>(&7).id(id).key("one").await.unwrap();
    gate.entered().await;
    for _ in 0..4 {
        let again = orchestrator.start::<Three>(&7).id(id).key("one").await.unwrap();
        assert_eq!((again.id, again.created), (first.id, false));
        orchestrator.wake();
    }
    let clash = orchestrator.start::<Three>(&7).id(id).key("another").await.unwrap_err();
    assert_eq!(clash.kind(), ErrorKind::Conflict, "{clash}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.leave.add_permits(1);
    ended(&orchestrator.wait(id, LIMIT).await.unwrap(), SagaStatus::Completed);
    running.shutdown().await.unwrap();
    assert_eq!(script.journal(), ["run a", "run b", "run c"], "it was not claimed beside itself");
}

async fn a_start_in_the_callers_transaction_follows_it(fresh: Fresh) {
    let script = Script::default();
    let orchestrator = orchestrator(&fresh, Three::new(&script)).await;
    let running = orchestrator.spawn().await.unwrap();
    let mut tx = fresh.database.begin().await.unwrap();
    let dropped = orchestrator.start::<Three>(&1).key("dropped").in_tx(&mut tx).await.unwrap();
    drop(tx);
    let mut tx = fresh.database.begin().await.unwrap();
    let kept = orchestrator.start::<Three>(&1).key("kept").in_tx(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    orchestrator.wake();
    ended(&orchestrator.wait(kept.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    assert_eq!(orchestrator.get(dropped.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    running.shutdown().await.unwrap();
}

async fn a_cancelled_saga_is_undone_after_the_running_step(fresh: Fresh) {
    let gate = Gate::new();
    let script = Script::default().on("run b", [Act::Gate(gate.clone())]);
    let orchestrator = orchestrator(&fresh, Three::new(&script)).await;
    let running = orchestrator.spawn().await.unwrap();
    let started = orchestrator.start::<Three>(&1).await.unwrap();
    gate.entered().await;
    orchestrator.cancel(started.id).await.unwrap();
    gate.leave.add_permits(1);
    let record = orchestrator.wait(started.id, LIMIT).await.unwrap();
    ended(&record, SagaStatus::Cancelled);
    assert_eq!(script.journal(), ["run a", "run b", "undo b", "undo a"]);
    assert_eq!(orchestrator.resume(started.id).await.unwrap_err().kind(), ErrorKind::InvalidState);
    running.shutdown().await.unwrap();
}

async fn a_cancel_after_the_pivot_is_refused(fresh: Fresh) {
    let (pivot, last) = (Gate::new(), Gate::new());
    let script = Script::default()
        .on("run b", [Act::Gate(pivot.clone())])
        .on("run c", [Act::Gate(last.clone())]);
    let orchestrator = orchestrator(&fresh, Three { pivot: true, ..Three::new(&script) }).await;
    let running = orchestrator.spawn().await.unwrap();
    let started = orchestrator.start::<Three>(&1).await.unwrap();
    pivot.entered().await;
    orchestrator.cancel(started.id).await.unwrap();
    pivot.leave.add_permits(1);
    last.entered().await;
    let late = orchestrator.cancel(started.id).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::InvalidState);
    last.leave.add_permits(1);
    ended(&orchestrator.wait(started.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    assert_eq!(script.journal(), ["run a", "run b", "run c"]);
    running.shutdown().await.unwrap();
}

async fn a_deadline_compensates_before_the_pivot(fresh: Fresh) {
    let script = Script::default().on("run b", vec![Act::Retry; 2]);
    let saga = Three { timeout: Some(Duration::from_millis(1)), ..Three::new(&script) };
    let (_, record) = crate::script::run(&fresh, saga).await;
    ended(&record, SagaStatus::Compensated);
    assert!(record.error.unwrap().contains("time limit"));
}

async fn a_panic_parks_its_saga_and_no_other(fresh: Fresh) {
    let script = Script::default().on("run a", [Act::Panic]);
    let orchestrator = orchestrator(&fresh, Three::new(&script)).await;
    let running = orchestrator.spawn().await.unwrap();
    let first = orchestrator.start::<Three>(&1).await.unwrap();
    let parked = orchestrator.wait(first.id, LIMIT).await.unwrap();
    ended(&parked, SagaStatus::Failed);
    assert!(parked.parked.unwrap().contains("scripted"), "the panic's text is kept");
    let second = orchestrator.start::<Three>(&1).await.unwrap();
    ended(&orchestrator.wait(second.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    let failed = SagaFilter::new().status(SagaStatus::Failed);
    assert_eq!(orchestrator.list(&failed).await.unwrap().1, 1);
    orchestrator.resume(first.id).await.unwrap();
    ended(&orchestrator.wait(first.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    running.shutdown().await.unwrap();
}

async fn a_parked_saga_can_be_cancelled(fresh: Fresh) {
    let script = Script::default().on("run b", [Act::Panic]);
    let orchestrator = orchestrator(&fresh, Three::new(&script)).await;
    let running = orchestrator.spawn().await.unwrap();
    let started = orchestrator.start::<Three>(&1).await.unwrap();
    ended(&orchestrator.wait(started.id, LIMIT).await.unwrap(), SagaStatus::Failed);
    orchestrator.cancel(started.id).await.unwrap();
    ended(&orchestrator.wait(started.id, LIMIT).await.unwrap(), SagaStatus::Cancelled);
    assert_eq!(script.journal(), ["run a", "run b", "undo b (uncertain)", "undo a"]);
    running.shutdown().await.unwrap();
}

/// A is paused inside a step and loses its lease; B takes over and is at a later step when A goes
/// on.
async fn a_paused_process_writes_nothing(fresh: Fresh) {
    prepare(&fresh.database).await;
    let (gate_a, gate_b) = (Gate::new(), Gate::new());
    let paused = Script::default().on("run a", [Act::Gate(gate_a.clone())]);
    let busy = Script::default().on("run b", [Act::Gate(gate_b.clone())]);
    let a = builder(&fresh).await.register(&Paused(paused)).unwrap().build();
    let b = builder(&fresh).await.register(&Paused(busy)).unwrap().build();
    let (run_a, run_b) = (a.spawn().await.unwrap(), b.spawn().await.unwrap());
    let order = Order { name: "one".to_owned(), ..Order::default() };
    let started = a.start::<Paused>(&order).await.unwrap();
    gate_a.entered().await;
    // As if its lease were over; again and again, since it may say that it lives meanwhile.
    let sagas = store(&fresh).await;
    let expired = async {
        loop {
            sagas.retire(a.node(), false).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = gate_b.entered() => {}
        () = expired => {}
    }
    let before = b.get(started.id).await.unwrap();
    let log = b.store().log(started.id).await.unwrap().len();
    gate_a.leave.add_permits(1);
    run_a.shutdown().await.unwrap();
    let after = b.get(started.id).await.unwrap();
    assert_eq!((after.step, after.fence, after.owner), (before.step, before.fence, before.owner));
    assert_eq!(b.store().log(started.id).await.unwrap().len(), log, "A wrote nothing");
    gate_b.leave.add_permits(1);
    ended(&b.wait(started.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    run_b.shutdown().await.unwrap();
    let effects = effects(&fresh.database).await;
    assert_eq!(effects.get("run reserve"), Some(&1), "{effects:?}");
    assert_eq!(effects.get("run ship"), Some(&1), "{effects:?}");
}

/// A gate, then steps with effects in the database.
struct Paused(Script);

impl Saga for Paused {
    const NAME: &'static str = "paused";
    const VERSION: u32 = 1;
    type Input = Order;
    type Output = String;

    fn define<'s>(
        &self,
        order: Value<'s, Order>,
        mut flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, String> {
        let one = order.map(|_| 1);
        let _gate = flow.step(Scripted::<0> { script: self.0.clone(), local: false }, one);
        let _reserved = flow.step(crate::effects::Reserve, &order);
        let one = order.map(|_| 1);
        let _busy = flow.step(Scripted::<1> { script: self.0.clone(), local: false }, one);
        let shipped = flow.step(crate::effects::Ship, &order);
        flow.finish(shipped)
    }
}

async fn a_killed_process_is_taken_over_and_the_open_step_asked_about(fresh: Fresh) {
    let gate = Gate::new();
    let script =
        Script::default().on("run b", [Act::Gate(gate.clone())]).on("probe b", [Act::ProbeDone]);
    let a = orchestrator(&fresh, Three::new(&script)).await;
    let running = a.spawn().await.unwrap();
    let started = a.start::<Three>(&1).await.unwrap();
    gate.entered().await;
    running.kill().await;
    store(&fresh).await.retire(a.node(), false).await.unwrap();
    let b = orchestrator(&fresh, Three::new(&script)).await;
    let running = b.spawn().await.unwrap();
    ended(&b.wait(started.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    running.shutdown().await.unwrap();
    assert_eq!(script.journal(), ["run a", "run b", "probe b", "run c"]);
}

async fn the_lease_runs_out_by_itself(fresh: Fresh) {
    let gate = Gate::new();
    let script = Script::default().on("run b", [Act::Gate(gate.clone())]);
    let short = Duration::from_millis(100);
    let a = builder(&fresh).await.lease_ttl(short).register(&Three::new(&script)).unwrap().build();
    let running = a.spawn().await.unwrap();
    let started = a.start::<Three>(&1).await.unwrap();
    gate.entered().await;
    running.kill().await;
    let b = orchestrator(&fresh, Three::new(&script)).await;
    let running = b.spawn().await.unwrap();
    ended(&b.wait(started.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    running.shutdown().await.unwrap();
}

async fn a_shutdown_hands_back_what_was_not_under_way(fresh: Fresh) {
    let gate = Gate::new();
    let script = Script::default().on("run b", [Act::Gate(gate.clone())]);
    let a = orchestrator(&fresh, Three::new(&script)).await;
    let running = a.spawn().await.unwrap();
    let started = a.start::<Three>(&1).await.unwrap();
    gate.entered().await;
    let stopping = tokio::spawn(running.shutdown());
    tokio::time::sleep(Duration::from_millis(20)).await;
    gate.leave.add_permits(1);
    stopping.await.unwrap().unwrap();
    assert_eq!(
        script.journal(),
        ["run a", "run b"],
        "the running step was finished, no other begun"
    );
    assert_eq!(a.get(started.id).await.unwrap().owner, None);
    let b = orchestrator(&fresh, Three::new(&script)).await;
    let running = b.spawn().await.unwrap();
    ended(&b.wait(started.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    running.shutdown().await.unwrap();
    assert_eq!(script.journal(), ["run a", "run b", "run c"], "nothing was asked or run twice");
}

/// The same name and version with another order of steps.
struct Edited(Script);

impl Saga for Edited {
    const NAME: &'static str = "three";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = u32;

    fn define<'s>(
        &self,
        input: Value<'s, u32>,
        mut flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, u32> {
        let b = flow.step(Scripted::<1> { script: self.0.clone(), local: false }, &input);
        flow.finish(b)
    }
}

async fn an_edited_definition_parks_what_runs(fresh: Fresh) {
    let script = Script::default();
    let client = orchestrator(&fresh, Three::new(&script)).await;
    let started = client.start::<Three>(&1).await.unwrap();
    let edited = builder(&fresh).await.register(&Edited(script.clone())).unwrap().build();
    let running = edited.spawn().await.unwrap();
    let record = edited.wait(started.id, LIMIT).await.unwrap();
    ended(&record, SagaStatus::Failed);
    assert!(record.parked.unwrap().contains("edited"));
    assert!(script.journal().is_empty());
    running.shutdown().await.unwrap();
    // With the right definition it goes on.
    let right = orchestrator(&fresh, Three::new(&script)).await;
    let running = right.spawn().await.unwrap();
    right.resume(started.id).await.unwrap();
    ended(&right.wait(started.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    running.shutdown().await.unwrap();
}

/// The next version, with an input that the first one can't have had.
struct Second(Script);

impl Saga for Second {
    const NAME: &'static str = "three";
    const VERSION: u32 = 2;
    type Input = String;
    type Output = u32;

    fn define<'s>(
        &self,
        input: Value<'s, String>,
        mut flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, u32> {
        let length = input.map(|text| u32::try_from(text.len()).unwrap());
        let b = flow.step(Scripted::<1> { script: self.0.clone(), local: false }, length);
        flow.finish(b)
    }
}

async fn an_orchestrator_runs_once(fresh: Fresh) {
    let script = Script::default();
    let orchestrator = orchestrator(&fresh, Three::new(&script)).await;
    let mut first = Box::pin(orchestrator.spawn());
    let running = match futures::poll!(&mut first) {
        Poll::Ready(running) => running.unwrap(),
        Poll::Pending => {
            // Given up before it began: that was no beginning.
            drop(first);
            orchestrator.spawn().await.unwrap()
        }
    };
    let twice = orchestrator.spawn().await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::InvalidState, "{twice}");
    running.shutdown().await.unwrap();
    let after = orchestrator.spawn().await.unwrap_err();
    assert_eq!(after.kind(), ErrorKind::Closed, "{after}");
    // What it stores now is for others.
    let started = orchestrator.start::<Three>(&1).await.unwrap();
    let other = builder(&fresh).await.register(&Three::new(&script)).unwrap().build();
    let running = other.spawn().await.unwrap();
    ended(&other.wait(started.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    running.shutdown().await.unwrap();
}

async fn versions_run_side_by_side_and_unknown_ones_wait(fresh: Fresh) {
    let script = Script::default();
    let both = builder(&fresh)
        .await
        .register(&Three::new(&script))
        .unwrap()
        .register(&Second(script.clone()))
        .unwrap();
    let both = both.build();
    let first = both.start::<Three>(&1).await.unwrap();
    let second = both.start::<Second>(&"four".to_owned()).await.unwrap();

    let old = builder(&fresh)
        .await
        .unknown_version_grace(Duration::ZERO)
        .register(&Three::new(&script))
        .unwrap()
        .build();
    let running = old.spawn().await.unwrap();
    ended(&old.wait(first.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    let parked = old.wait(second.id, LIMIT).await.unwrap();
    ended(&parked, SagaStatus::Failed);
    assert!(parked.parked.unwrap().contains("version 2"));
    running.shutdown().await.unwrap();

    let running = both.spawn().await.unwrap();
    let mut record = both.get(second.id).await.unwrap();
    for _ in 0..200 {
        if record.status == SagaStatus::Completed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        record = both.get(second.id).await.unwrap();
    }
    ended(&record, SagaStatus::Completed);
    assert_eq!(both.result::<Second>(second.id).await.unwrap(), Some(5));
    running.shutdown().await.unwrap();
}

async fn an_input_that_cant_be_read_parks_alone(fresh: Fresh) {
    let script = Script::default();
    let orchestrator = orchestrator(&fresh, Three::new(&script)).await;
    let (_, definition) = ((), orchestrator.definition("three", 1).unwrap());
    assert_eq!(definition.step_names().collect::<Vec<_>>(), ["a", "b", "c"]);
    let odd = potter_saga::NewSaga {
        id: potter_core::new_id(),
        name: "three",
        version: 1,
        definition_hash: hash_of(&fresh, &script).await,
        key: "odd".to_owned(),
        input_hash: String::new(),
        input: Json::of("not a number").unwrap(),
        metadata: potter_core::Metadata::new(),
        steps_total: 3,
        timeout: None,
        owner: None,
    };
    orchestrator.store().insert(None, &odd).await.unwrap();
    let running = orchestrator.spawn().await.unwrap();
    let record = orchestrator.wait(odd.id, LIMIT).await.unwrap();
    ended(&record, SagaStatus::Failed);
    assert!(record.parked.unwrap().contains("the saga's input"));
    let fine = orchestrator.start::<Three>(&1).await.unwrap();
    ended(&orchestrator.wait(fine.id, LIMIT).await.unwrap(), SagaStatus::Completed);
    running.shutdown().await.unwrap();
}

async fn hash_of(fresh: &Fresh, script: &Script) -> String {
    let client = orchestrator(fresh, Three::new(script)).await;
    let started = client.start::<Three>(&1).key("for its hash").await.unwrap();
    client.get(started.id).await.unwrap().definition_hash
}

async fn two_processes_share_many_sagas(fresh: Fresh) {
    prepare(&fresh.database).await;
    let world = World::default();
    let make = async || {
        builder(&fresh).await.concurrency(8).register(&Purchase(world.clone())).unwrap().build()
    };
    let (a, b) = (make().await, make().await);
    let client = make().await;
    let (run_a, run_b) = (a.spawn().await.unwrap(), b.spawn().await.unwrap());
    let mut ids = Vec::new();
    for number in 0..60 {
        let reject = (number % 3 == 0).then(|| "ship".to_owned());
        let order = Order {
            name: format!("order-{number}"),
            reject,
            lose_answer: (number % 5 == 0).then(|| "pay".to_owned()),
        };
        let starter = [&a, &b, &client][number % 3];
        ids.push(
            starter.start::<Purchase>(&order).key(format!("order-{number}")).await.unwrap().id,
        );
    }
    client.wake();
    let mut completed = 0;
    for id in ids {
        let record = a.wait(id, LIMIT).await.unwrap();
        assert!(record.status.is_final(), "{:?}", record.parked);
        completed += usize::from(record.status == SagaStatus::Completed);
    }
    run_a.shutdown().await.unwrap();
    run_b.shutdown().await.unwrap();
    assert_eq!(completed, 40);
    let effects = effects(&fresh.database).await;
    assert_eq!(effects["run reserve"], 60);
    assert_eq!(effects["undo reserve"], 20);
    assert_eq!(effects["run finish"], 40);
    assert_eq!(world.standing(), 40);
}

on_every_engine! {
    sixty_four_starts_with_one_key_are_one_saga;
    starts_with_one_id_run_once;
    a_start_in_the_callers_transaction_follows_it;
    a_cancelled_saga_is_undone_after_the_running_step;
    a_cancel_after_the_pivot_is_refused;
    a_deadline_compensates_before_the_pivot;
    a_panic_parks_its_saga_and_no_other;
    a_parked_saga_can_be_cancelled;
    a_paused_process_writes_nothing;
    a_killed_process_is_taken_over_and_the_open_step_asked_about;
    the_lease_runs_out_by_itself;
    a_shutdown_hands_back_what_was_not_under_way;
    an_edited_definition_parks_what_runs;
    an_orchestrator_runs_once;
    versions_run_side_by_side_and_unknown_ones_wait;
    an_input_that_cant_be_read_parks_alone;
    two_processes_share_many_sagas;
}
