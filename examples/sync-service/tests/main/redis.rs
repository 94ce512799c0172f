//! Redis beside the store: it makes things faster, and nothing that it does makes them wrong.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use example_sync_service::client::{Failure, Local};
use example_sync_service::document::Kind;
use examples_test_support::{Program, program};
use serde_json::{Value, json};

use crate::devices::{Port, act, key, meet_at_last, shown};
use crate::place::{Place, get, register, upload, value};

const PATIENCE: Duration = Duration::from_secs(60);
const AN_HOUR_MS: &str = "3600000";

/// A server of a test's own, so that it can be paused and killed.
struct Server {
    child: Option<Child>,
    port: u16,
}

/// The server's program. Debian's `redis-tools` has it under another name, at which it looks.
fn server_program() -> (PathBuf, &'static str) {
    let paths = std::env::var("PATH").unwrap_or_default();
    let names = ["redis-server", "valkey-server", "redis-check-rdb"];
    let found = std::env::var("POTTER_REDIS").ok().map(|path| (path.into(), "redis-server"));
    found
        .or_else(|| {
            names.iter().find_map(|name| {
                let mut all = paths.split(':').map(|folder| PathBuf::from(folder).join(name));
                let arg0 = if *name == "valkey-server" { name } else { "redis-server" };
                Some((all.find(|path| path.exists())?, arg0))
            })
        })
        .unwrap_or_else(|| panic!("there is no redis-server; run: scripts/services install redis"))
}

impl Server {
    fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut server = Self { child: None, port };
        server.restart();
        server
    }

    fn restart(&mut self) {
        let (path, arg0) = server_program();
        let mut command = Command::new(path);
        command.arg0(arg0).args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]).current_dir(std::env::temp_dir());
        self.child = Some(command.stdout(Stdio::null()).spawn().unwrap());
        let began = Instant::now();
        while self.client().is_err() {
            assert!(began.elapsed() < PATIENCE, "redis does not answer");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    fn client(&self) -> redis::RedisResult<redis::Connection> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        redis::cmd("PING").query::<()>(&mut connection)?;
        Ok(connection)
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The sum of a metric over its labels that contain `with`.
fn metric(program: &Program, name: &str, with: &str) -> f64 {
    let text = program.get("/metrics").body;
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(with));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The server that `scripts/services` started.
fn shared() -> String {
    std::env::var("POTTER_TEST_REDIS_URL").unwrap_or_else(|_| {
        panic!("POTTER_TEST_REDIS_URL is not set; run: eval \"$(scripts/services up)\"")
    })
}

/// Each process looks once an hour: only a message can tell it in time.
fn an_upload_wakes_who_waits_at_another_process(place: &Place) {
    let url = shared();
    let variables = [("REDIS_URL", url.as_str()), ("SYNC_LOOK_MS", AN_HOUR_MS)];
    let (here, there) = (place.start_with(&variables), place.start_with(&variables));
    register(&here, "writer", "ada");
    register(&here, "reader", "ada");
    let start = get(&there, "/sync/download?device_id=reader").of(200);
    let mut cursor = start["next_cursor"].as_str().unwrap().to_owned();
    for n in 0..5 {
        thread::scope(|scope| {
            let path = format!("/sync/download?device_id=reader&cursor={cursor}&wait_ms=30000");
            let there = &there;
            let waiter = scope.spawn(move || get(there, &path).of(200));
            // The one who waits, and the one who asks for this.
            until("somebody waits", || metric(there, "http_requests_in_flight", "") >= 2.0);
            upload(
                &here,
                "writer",
                &format!("e{n}"),
                "GCounter",
                &json!([{ "type": "increment" }]),
            );
            let page = waiter.join().unwrap();
            assert_eq!(page["changes"].as_array().unwrap().len(), 1, "{page}");
            page["next_cursor"].as_str().unwrap().clone_into(&mut cursor);
        });
    }
    told(&there, 5.0);
}

/// So many waits ended with news, and none of them by a look at the end of its time.
fn told(program: &Program, waits: f64) {
    assert_eq!(metric(program, "sync_waits_total", "looked"), 0.0);
    let ended = ["told", "at_once"].map(|how| metric(program, "sync_waits_total", how));
    assert_eq!(ended.iter().sum::<f64>(), waits);
}

#[test]
fn an_upload_wakes_who_waits_at_another_process_on_postgres() {
    an_upload_wakes_who_waits_at_another_process(&Place::postgres());
}

#[cfg(feature = "mongodb")]
#[test]
fn an_upload_wakes_who_waits_at_another_process_on_mongodb() {
    an_upload_wakes_who_waits_at_another_process(&Place::mongodb());
}

/// What is told while Redis is away is found when it is back, though nobody looks by itself.
#[test]
fn what_was_told_while_redis_was_away_is_found_at_its_return() {
    let (place, mut server) = (Place::postgres(), Server::start());
    let url = server.url();
    let variables = [("REDIS_URL", url.as_str()), ("SYNC_LOOK_MS", AN_HOUR_MS)];
    let (here, there) = (place.start_with(&variables), place.start_with(&variables));
    register(&here, "writer", "ada");
    register(&here, "reader", "ada");
    let start = get(&there, "/sync/download?device_id=reader").of(200);
    let cursor = start["next_cursor"].as_str().unwrap();
    server.kill();
    until("they notice", || {
        [&here, &there].iter().all(|program| metric(program, "sync_redis_up", "") == 0.0)
    });
    thread::scope(|scope| {
        let path = format!("/sync/download?device_id=reader&cursor={cursor}&wait_ms=30000");
        let reader = &there;
        let waiter = scope.spawn(move || get(reader, &path).of(200));
        until("somebody waits", || metric(&there, "http_requests_in_flight", "") >= 2.0);
        upload(&here, "writer", "n", "GCounter", &json!([{ "type": "increment" }]));
        server.restart();
        assert_eq!(waiter.join().unwrap()["changes"].as_array().unwrap().len(), 1);
    });
    told(&there, 1.0);
}

/// The answers of a service, without what is of the moment.
fn answers(program: &Program) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    let mut add = |path: &str| {
        let mut answer = get(program, path).of(200);
        answer.as_object_mut().unwrap().remove("server_time");
        answers.insert(path.to_owned(), answer.clone());
        answer
    };
    for entity in ["n", "r", "s"] {
        add(&format!("/crdt/state/document/{entity}?device_id=d"));
    }
    let first = add("/sync/download?device_id=d&limit=2");
    add(&format!("/sync/download?device_id=d&cursor={}", first["next_cursor"].as_str().unwrap()));
    let zero = add("/sync/download?device_id=late");
    add(&format!("/sync/download?device_id=d&cursor={}", zero["next_cursor"].as_str().unwrap()));
    answers
}

fn write_all(program: &Program, n: usize) {
    let at = format!("2024-01-01T10:00:{n:02}.5Z");
    upload(program, "d", "n", "PNCounter", &json!([{ "type": "increment", "value": n }]));
    let value = json!({ "n": n, "x": 0.1 + 1e-7 * n as f64 });
    let set = json!([{ "type": "set", "value": value, "timestamp": at }]);
    upload(program, "d", "r", "LWWRegister", &set);
    upload(program, "d", "s", "ORSet", &json!([{ "type": "add", "value": n }]));
}

#[test]
fn answers_are_the_same_with_a_cache_whatever_is_in_it() {
    let (place, server) = (Place::postgres(), Server::start());
    let url = server.url();
    let cached =
        [place.start_with(&[("REDIS_URL", &url)]), place.start_with(&[("REDIS_ADDR", &url)])];
    let plain = place.start();
    register(&plain, "d", "ada");
    register(&plain, "late", "ada");
    let mut redis = server.client().unwrap();
    let keys = |redis: &mut redis::Connection| -> Vec<String> {
        redis::cmd("KEYS").arg("potter-sync:cache:*").query(redis).unwrap()
    };
    for n in 0..4 {
        write_all(&cached[n % 2], n);
        // Never what was before the write.
        let expected = answers(&plain);
        for program in [&cached[0], &cached[1], &cached[0]] {
            assert_eq!(answers(program), expected);
        }
    }
    until("it is kept", || keys(&mut redis).len() >= 8);
    let hits = metric(&cached[0], "sync_cache_total", "hit");
    assert_eq!(answers(&cached[0]), answers(&plain));
    assert!(metric(&cached[0], "sync_cache_total", "hit") > hits, "it is used");
    // Garbage in every key, of every sort, and values of other keys.
    let all = keys(&mut redis);
    for round in 0..5 {
        for (at, key) in all.iter().enumerate() {
            let other: Vec<u8> = redis::cmd("GETRANGE")
                .arg(&all[(at + 1) % all.len()])
                .arg(0)
                .arg(-1)
                .query(&mut redis)
                .unwrap_or_default();
            let bytes = match round {
                0 => b"garbage".to_vec(),
                1 => vec![0; 3_000_000],
                2 => other,
                3 => br#"{"changes":[],"position":{"seq":99,"mark":1},"after":null,"more":false}"#
                    .to_vec(),
                _ => {
                    redis::cmd("DEL").arg(key).query::<()>(&mut redis).unwrap();
                    redis::cmd("RPUSH").arg(key).arg("a list").query::<()>(&mut redis).unwrap();
                    continue;
                }
            };
            redis::cmd("SET").arg(key).arg(bytes).query::<()>(&mut redis).unwrap();
        }
        assert_eq!(answers(&cached[0]), answers(&plain), "round {round}");
        // What was refused is made anew, and kept.
        assert_eq!(answers(&cached[1]), answers(&plain), "round {round}");
    }
    assert!(metric(&cached[0], "sync_cache_total", "refused") > 0.0);
    // Messages that nobody sent.
    let channels: Vec<String> =
        redis::cmd("PUBSUB").arg("CHANNELS").arg("potter-sync:news:*").query(&mut redis).unwrap();
    assert_eq!(channels.len(), 1, "one for the store");
    for message in [&b""[..], b"*", b"x *", b"x \xff", &[b'a'; 100_000]] {
        redis::cmd("PUBLISH").arg(&channels[0]).arg(message).query::<()>(&mut redis).unwrap();
    }
    redis::cmd("FLUSHALL").query::<()>(&mut redis).unwrap();
    assert_eq!(answers(&cached[0]), answers(&plain));
    let names = redis::cmd("KEYS").arg("*").query::<Vec<String>>(&mut redis).unwrap();
    let hash = |name: &str| name.rsplit_once(':').unwrap().1.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(names.iter().all(|name| hash(name)), "nothing about users: {names:?}");
}

/// Devices work at two processes while Redis hangs, comes back, is emptied, is killed, and is started.
#[test]
fn devices_agree_whatever_becomes_of_redis() {
    const DEVICES: usize = 4;
    const ROUNDS: usize = 40;
    let (place, mut server) = (Place::postgres(), Server::start());
    let url = server.url();
    let programs = [0, 1].map(|_| place.start_with(&[("REDIS_URL", url.as_str())]));
    let ports: Vec<_> = programs.iter().map(Port::of).collect();
    let mut devices: Vec<_> = (0..DEVICES).map(|n| Local::new(&format!("d{n}"), "ada")).collect();
    let round = |devices: &mut Vec<Local>, n: usize| {
        thread::scope(|scope| {
            for (at, device) in devices.iter_mut().enumerate() {
                let port = &ports[(at + n) % 2];
                scope.spawn(move || {
                    act(device, "n", Kind::PnCounter, "increment", json!(1));
                    act(device, "s", Kind::OrSet, "add", json!(format!("{at}-{n}")));
                    act(device, "r", Kind::LwwRegister, "set", json!(n));
                    // No failure at all: nothing depends on Redis.
                    let met = crate::devices::meet(device, port);
                    assert!(!matches!(met, Err(Failure::Unreachable(_))), "{met:?}");
                    met.unwrap();
                });
            }
        });
    };
    for n in 0..ROUNDS {
        match n {
            8 => server.signal("STOP"),
            16 => server.signal("CONT"),
            20 => {
                until("it is back", || {
                    programs.iter().all(|program| metric(program, "sync_redis_up", "") == 1.0)
                });
                redis::cmd("FLUSHALL").query::<()>(&mut server.client().unwrap()).unwrap();
            }
            24 => server.kill(),
            32 => server.restart(),
            _ => {}
        }
        round(&mut devices, n);
        for program in &programs {
            assert_eq!(value_of(program, "n"), (n + 1) * DEVICES, "round {n}");
        }
    }
    for _ in 0..2 {
        for device in &mut devices {
            meet_at_last(device, &ports[0]);
        }
    }
    for entity in ["n", "s", "r"] {
        for device in &devices {
            assert_eq!(shown(device, entity), value(&programs[1], entity));
            let same = device.entities[&key(entity)].to_bytes();
            assert_eq!(same, devices[0].entities[&key(entity)].to_bytes(), "byte for byte");
        }
    }
    assert_eq!(value(&programs[0], "s").as_array().unwrap().len(), ROUNDS * DEVICES);
    for program in &programs {
        assert!(metric(program, "sync_redis_errors_total", "") > 0.0, "it was noticed");
        until("it is back", || metric(program, "sync_redis_up", "") == 1.0);
        assert_eq!(program.get("/health").status, 200);
    }
}

/// As a device sees it, so that the cache is asked.
fn value_of(program: &Program, entity: &str) -> Value {
    get(program, &format!("/crdt/state/document/{entity}?device_id=d0")).of(200)["value"].clone()
}

#[test]
fn a_redis_that_can_not_be_reached_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start();
    let url = |scheme: &str| format!("{scheme}://me:secret@127.0.0.1:{}/0", server.port);
    let refuses = url("redis");
    let tls = url("rediss");
    for (name, url, says) in [
        ("REDIS_URL", "redis://me:secret@127.0.0.1:1/0", "127.0.0.1:1"),
        ("REDIS_ADDR", "127.0.0.1:1", "127.0.0.1:1"),
        ("REDIS_URL", "http://me:secret@127.0.0.1/", "malformed"),
        ("REDIS_URL", &tls, "TLS"),
        // There is no such user.
        ("REDIS_URL", &refuses, "127.0.0.1"),
    ] {
        let mut command = Command::new(program("sync-service"));
        command.env_clear().env("PORT", "0").env(name, url).current_dir(folder.path());
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(name) && text.contains(says), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(text.trim().lines().count(), 1, "{text}");
    }
    // One that hangs.
    server.signal("STOP");
    let mut command = Command::new(program("sync-service"));
    command.env_clear().env("PORT", "0").env("REDIS_URL", server.url()).current_dir(folder.path());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("REDIS_URL") && text.contains("can't be reached"), "{text}");
    server.signal("CONT");
    server.kill();
}
