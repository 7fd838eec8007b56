//! Under systemd, and as the first process of a container.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use crate::harness::command::{Project, config, terminate};
use crate::harness::database::Database;

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_notified() {
    let database = Database::sqlite().await;
    database.orders(0).await;
    let socket = database.folder().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "sends", "")]));
    let mut command = project.command(&["run"]);
    let mut relay = command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000").spawn().unwrap();
    let hear = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = systemd.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted} is not said: {error}"));
            if String::from_utf8_lossy(&buffer[..length]).contains(wanted) {
                return;
            }
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    crate::harness::command::send(&relay, "HUP");
    hear("RELOADING=1");
    hear("READY=1");
    terminate(&relay);
    hear("STOPPING=1");
    assert_eq!(relay.wait().unwrap().code(), Some(0));
}

/// The kernel drops signals to process 1 unless it has installed a handler.
#[tokio::test(flavor = "multi_thread")]
async fn process_1_drains_when_stopped() {
    let database = Database::sqlite().await;
    database.orders(0).await;
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "counts", "")]));
    let relay = project.command(&["run"]);
    let witness = crate::harness::witness::Witness::new(database.folder());
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(relay.get_program()).arg("run").current_dir(project.folder());
    let mut container = command.stderr(witness.stderr()).spawn().unwrap();
    witness.wait_until("relay running");
    database.run("INSERT INTO order_placed VALUES (1, 'c', 'p')").await;
    witness.wait_for(1);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", container.id())).unwrap();
    let one = children.trim();
    assert!(Command::new("kill").args(["-s", "TERM", one]).status().unwrap().success());
    assert_eq!(container.wait().unwrap().code(), Some(0), "{}", witness.text());
}
