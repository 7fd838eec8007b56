//! What stands in the place of a plugin's file.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn only_a_regular_file_of_a_sensible_size_is_read() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(std::process::Command::new("mkfifo").arg(path("pipe.wasm")).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", path("zero.wasm")).unwrap();
    std::fs::File::create(path("sparse.wasm")).unwrap().set_len(20 << 30).unwrap();
    std::fs::create_dir(path("folder.wasm")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket.wasm")).unwrap();
    for (name, words) in [
        ("pipe", "it is not a regular file"),
        ("zero", "it is not a regular file"),
        ("folder", "it is not a regular file"),
        ("sparse", "it is larger than 128 MiB"),
        ("socket", "cannot be read: "),
    ] {
        let beside = Beside::start(&path(&format!("{name}.wasm")), "").await;
        beside.wait_for(words);
        beside.neighbour_works().await;
        beside.stop();
    }
}

/// One that is loaded for ever keeps nobody waiting, and a stop neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_does_not_end_keeps_nobody_waiting() {
    let folder = tempfile::TempDir::new().unwrap();
    let endless = components::module("", "(func $spin (loop $again (br $again))) (start $spin)", "unreachable");
    let plugin = components::write(folder.path(), "endless", endless);
    let beside = Beside::start(&plugin, "timeout = '60s'").await;
    beside.neighbour_works().await;
    let answer = beside.relay.get("/readyz");
    assert!(answer.status == 503 && answer.body.contains("OrderPlaced: it is being loaded"), "{answer:?}");
    assert_eq!(beside.relay.status_of("OrderPlaced")["state"], "starting");
    beside.stop();
    // Alone, too.
    let database = Database::sqlite().await;
    database.orders(1).await;
    let mut alone = Running::spawn(&database, &section("OrderPlaced", &plugin, "timeout = '60s'"), "");
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    assert_eq!(alone.stop(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?} to stop", begun.elapsed());
}
