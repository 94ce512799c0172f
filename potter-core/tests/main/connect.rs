//! A connection that fails says why, and never says the password.

use std::path::PathBuf;

use potter_core::testing::TestDatabase;
use potter_core::{Database, DatabaseOptions, Engine, Error, ErrorKind, new_id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::ms;

const PASSWORD: &str = "tops3cret";

async fn refused(url: &str) -> Error {
    let options = DatabaseOptions::new().acquire_timeout(ms(2000));
    let error = options.connect(url).await.unwrap_err();
    // Also not in what goes to a log with the causes.
    let all = format!("{error} {error:?}");
    assert!(!all.contains(PASSWORD), "{all}");
    error
}

fn assert_says(error: &Error, kind: ErrorKind, text: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(text), "{error} does not say {text}");
}

#[tokio::test]
async fn a_url_of_another_kind() {
    for url in ["", "shop.db", "mysql://u:tops3cret@h/d", "SQLITE://a.db", "://tops3cret"] {
        assert_says(&refused(url).await, ErrorKind::Config, "must begin with");
    }
}

#[tokio::test]
async fn a_malformed_url() {
    for url in [
        "postgres://u:tops3cret@host:port/d",
        "postgres://u:tops3cret@[::1/d",
        "postgres://u:tops3cret@host:99999/d",
        "postgres://u:tops3cret@host/d?sslmode=tops3cret",
        "sqlite://a.db?mode=tops3cret",
    ] {
        assert_says(&refused(url).await, ErrorKind::Config, "malformed");
    }
    for url in ["sqlite:", "sqlite://", "sqlite://?mode=rwc"] {
        assert_says(&refused(url).await, ErrorKind::Config, "no file");
    }
    assert_says(&refused("sqlite::memory:").await, ErrorKind::Config, "memory:");
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = refused(&format!("postgres://u:{PASSWORD}@127.0.0.1:{port}/d")).await;
    assert_says(&error, ErrorKind::Unavailable, &format!("127.0.0.1:{port}"));
    assert!(error.is_retryable());
    let error = refused(&format!("postgres://u:{PASSWORD}@nowhere.invalid:5432/d")).await;
    assert_says(&error, ErrorKind::Unavailable, "nowhere.invalid:5432");
}

#[tokio::test]
async fn a_server_that_does_not_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = refused(&format!("postgres://u:{PASSWORD}@127.0.0.1:{port}/d")).await;
    assert_says(&error, ErrorKind::Unavailable, &format!("127.0.0.1:{port} did not answer"));
}

/// A server that answers the startup message with this error, as PostgreSQL does.
async fn refusing_server(code: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            loop {
                let mut length = [0; 4];
                if client.read_exact(&mut length).await.is_err() {
                    break;
                }
                let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
                client.read_exact(&mut body).await.unwrap();
                // A question for TLS comes first: no.
                if body[..4] == 80_877_103_u32.to_be_bytes() {
                    client.write_all(b"N").await.unwrap();
                    continue;
                }
                let fields = format!("SFATAL\0VFATAL\0C{code}\0Mrefused here\0\0");
                let mut answer = vec![b'E'];
                let length = u32::try_from(fields.len() + 4).unwrap();
                answer.extend(length.to_be_bytes());
                answer.extend(fields.as_bytes());
                client.write_all(&answer).await.unwrap();
                break;
            }
        }
    });
    port
}

#[tokio::test]
async fn a_server_that_refuses() {
    for (code, kind, text) in [
        ("28P01", ErrorKind::Unauthorized, "user \"ann\""),
        ("28000", ErrorKind::Unauthorized, "user \"ann\""),
        ("42501", ErrorKind::Unauthorized, "grant CONNECT"),
        ("3D000", ErrorKind::Config, "no database \"shop\""),
        ("08P01", ErrorKind::Config, "PgBouncer"),
        ("53300", ErrorKind::Unavailable, "53300"),
        ("57P03", ErrorKind::Unavailable, "57P03"),
    ] {
        let port = refusing_server(code).await;
        let error = refused(&format!("postgres://ann:{PASSWORD}@127.0.0.1:{port}/shop")).await;
        assert_says(&error, kind, text);
        assert_says(&error, kind, &format!("127.0.0.1:{port}"));
    }
}

#[tokio::test]
async fn a_database_that_is_not_there() {
    let test = TestDatabase::postgres().await;
    let (server, name) = test.url().rsplit_once('/').unwrap();
    let (name, settings) = name.split_once('?').unwrap_or((name, ""));
    let missing = format!("{server}/{name}_missing?{settings}");
    assert_says(&refused(&missing).await, ErrorKind::Config, "_missing\": create it");
    test.close().await;
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("potter_test_{}", new_id().simple()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_opened() {
    let folder = Folder::new();
    let text = folder.0.join("notes.txt");
    std::fs::write(&text, "These are notes, and no database at all. ".repeat(100)).unwrap();
    let inside = text.join("shop.db");
    for path in [&text, &inside, &folder.0] {
        let error = refused(&format!("sqlite://{}", path.display())).await;
        assert_says(&error, ErrorKind::Config, &path.display().to_string());
    }
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("These are notes"));
}

/// Root may write everywhere, except where nobody can.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_folder_that_takes_no_files() {
    let error = refused("sqlite:///proc/potter/shop.db").await;
    assert_says(&error, ErrorKind::Config, "/proc/potter/shop.db");
}

#[tokio::test]
async fn folders_on_the_way_to_a_file_are_made() {
    let folder = Folder::new();
    let path = folder.0.join("data/of the/shop.db");
    for _ in 0..2 {
        let database = Database::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        assert_eq!(database.engine(), Engine::Sqlite);
        database.ping().await.unwrap();
        database.close().await;
    }
    assert!(path.is_file());
}

#[tokio::test]
async fn each_engine_by_its_url() {
    let memory = Database::connect("memory:").await.unwrap();
    assert_eq!((memory.engine(), memory.engine().to_string()), (Engine::Memory, "memory".into()));
    assert!(memory.sqlite().is_none() && memory.postgres().is_none());
    let test = TestDatabase::postgres().await;
    let url = test.url().replace("postgres://", "postgresql://");
    let postgres = Database::connect(&url).await.unwrap();
    assert_eq!(postgres.engine(), Engine::Postgres);
    assert!(postgres.postgres().is_some() && postgres.sqlite().is_none());
    let drift = postgres.now().await.unwrap() - chrono::Utc::now();
    assert!(drift.num_seconds().abs() < 60, "{drift}");
    postgres.close().await;
    test.close().await;
}

/// Of a pool that is used up, a caller hears in time.
#[tokio::test]
async fn a_pool_that_is_used_up() {
    for test in [TestDatabase::sqlite().await, TestDatabase::postgres().await] {
        let database = DatabaseOptions::new()
            .max_connections(1)
            .acquire_timeout(ms(200))
            .connect(test.url())
            .await
            .unwrap();
        let held = database.begin().await.unwrap();
        let error = database.begin().await.unwrap_err();
        assert_says(&error, ErrorKind::Unavailable, "came free in time");
        held.rollback().await.unwrap();
        database.begin().await.unwrap().rollback().await.unwrap();
        database.close().await;
        test.close().await;
    }
}

#[tokio::test]
async fn test_databases_go_away() {
    let sqlite = TestDatabase::sqlite().await;
    let file = PathBuf::from(sqlite.url().trim_start_matches("sqlite://"));
    assert!(file.is_file());
    drop(sqlite);
    assert!(!file.parent().unwrap().exists());

    for closed in [true, false] {
        let postgres = TestDatabase::postgres().await;
        let url = postgres.url().to_owned();
        if closed {
            postgres.close().await;
        } else {
            // As after a panic in the middle of a test.
            let tx = postgres.database().begin().await.unwrap();
            drop(postgres);
            drop(tx);
        }
        assert_eq!(refused(&url).await.kind(), ErrorKind::Config);
    }
}
