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

/// A file that is overwritten, cut off and made longer while it is read, and a link that turns.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_never_rests_harms_nobody_else() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let plugin = path("plugin.wasm");
    std::fs::copy(guest("sends"), &plugin).unwrap();
    let beside = Beside::start(&plugin, "").await;
    let whole = std::fs::read(guest("traps")).unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    let turn = |n: usize| {
        let targets = ["/dev/zero", "folder", "plugin.wasm", "nowhere", "/proc/self/mem", "/dev/stdin"];
        match n % 5 {
            0 => std::fs::write(&plugin, &whole[..whole.len() / (2 + n % 7)]),
            1 => std::fs::File::options().write(true).open(&plugin).and_then(|file| file.set_len(n as u64 % 9)),
            2 => std::fs::File::options().write(true).open(&plugin).and_then(|file| file.set_len(127 << 20)),
            3 => std::fs::write(path("fresh"), [&whole[..], &[0, 3, 1, b'e', n as u8]].concat())
                .and_then(|()| std::fs::rename(path("fresh"), &plugin)),
            _ => symlink(targets[n / 5 % targets.len()], path("fresh")).and_then(|()| std::fs::rename(path("fresh"), &plugin)),
        }
    };
    let begun = Instant::now();
    for n in 0.. {
        // It rests now and then, so that it is read.
        let _ = turn(n);
        std::thread::sleep(Duration::from_millis(if n % 4 == 0 { 600 } else { 1 }));
        if begun.elapsed() > Duration::from_secs(6) {
            break;
        }
        // What cannot be written through a link is taken away.
        if std::fs::symlink_metadata(&plugin).is_ok_and(|found| found.is_symlink()) {
            std::fs::remove_file(&plugin).unwrap();
        }
    }
    beside.neighbour_works().await;
    let _ = std::fs::remove_file(&plugin);
    std::fs::copy(guest("sends"), &plugin).unwrap();
    beside.relay.wait_empty(&beside.database, "order_placed").await;
    assert!(beside.relay.status_of("OrderPlaced").to_string().len() < 40_000);
    beside.stop();
}
