//! Plugins whose function takes one signal: a call has many signals, but each counts for itself.

use crate::harness::command::{Project, Said};
use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::runs::{Promise, check_order};
use crate::harness::witness::Witness;

/// A signal type whose plugin does what the column `payload` says, and logs what it sends.
struct Orders {
    database: Database,
    project: Project,
    witness: Witness,
}

impl Orders {
    /// `payload` is an expression of `id`; `more` are further lines of the signal type.
    async fn with(rows: u32, payload: &str, more: &str) -> Self {
        let database = Database::sqlite().await;
        database.orders(rows).await;
        database.run(&format!("UPDATE order_placed SET payload = {payload}")).await;
        let plugin = guest("outcomes_one");
        let config = format!(
            "[database]\nurl = {:?}\n[signals.OrderPlaced]\nplugin = {plugin:?}\nburst_count = 500\nconcurrency = 1\n{more}\n\
             [signals.OrderPlaced.retry]\nbackoff = {{ first = '1h', max = '1h' }}\n",
            database.url
        );
        let project = Project::new(database.folder(), &config);
        let witness = Witness::new(database.folder());
        Self { database, project, witness }
    }

    fn flush(&self) -> Said {
        let output = self.project.command(&["flush", "-w", "0"]).stderr(self.witness.stderr()).output().unwrap();
        output.into()
    }

    /// Lets what waits for another attempt wait no longer, and flushes.
    async fn flush_again(&self) -> Said {
        self.database.run("UPDATE signalbus_hold SET due_at = 0").await;
        self.flush()
    }

    /// How many signals were sent more than once.
    fn repeated(&self) -> usize {
        self.witness.counts().values().filter(|count| **count > 1).count()
    }

    /// The rows that remain, with the attempts charged to each.
    async fn left(&self) -> Vec<String> {
        let text = "SELECT o.id || ' ' || coalesce(h.attempts, 0) FROM order_placed o \
                    LEFT JOIN signalbus_hold h ON h.signal_key = o.id ORDER BY o.id";
        self.database.lines(text).await
    }
}

/// What was sent before it in the same call is sent again, which is no more than takes a millisecond.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_charged_to_one_row() {
    for (others, most) in [("sent", 249), ("sleep:1", 0)] {
        let orders = Orders::with(500, &format!("CASE id WHEN 250 THEN 'trap' ELSE '{others}' END"), "").await;
        assert_eq!(orders.flush().status, 1, "{}", orders.witness.text());
        assert_eq!(orders.left().await, ["250 1"]);
        assert_eq!(orders.witness.counts().len(), 499);
        let repeated = orders.repeated();
        assert!(repeated <= most, "{repeated} signals were sent twice: {}", orders.witness.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_crashes_again_comes_before_others() {
    let orders = Orders::with(21, "CASE id WHEN 21 THEN 'trap' ELSE 'sent' END", "").await;
    orders.database.run("DELETE FROM order_placed WHERE id <= 20").await;
    assert_eq!(orders.flush().status, 1);
    let source = orders.database.series(20);
    orders.database.run(&format!("INSERT INTO order_placed SELECT i, 'c', 'sent' FROM {source}")).await;
    assert_eq!(orders.flush_again().await.status, 1, "{}", orders.witness.text());
    assert_eq!(orders.left().await, ["21 2"]);
    assert_eq!((orders.witness.counts().len(), orders.repeated()), (20, 0), "{}", orders.witness.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_never_returns_is_charged_alone() {
    let orders = Orders::with(100, "CASE id WHEN 50 THEN 'spin' ELSE 'sent' END", "timeout = '1s'").await;
    assert_eq!(orders.flush().stdout, "sent 99, deferred 1, buried 0\n", "{}", orders.witness.text());
    assert_eq!(orders.left().await, ["50 1"]);
}

/// Each row has the whole time limit, however many there are, and even if the bus becomes slow all at once.
#[tokio::test(flavor = "multi_thread")]
async fn slow_rows_do_not_share_a_deadline() {
    for payload in ["'sleep:100'", "CASE WHEN id <= 480 THEN 'sent' ELSE 'sleep:100' END"] {
        let orders = Orders::with(500, "'sent'", "timeout = '1s'").await;
        orders.database.run("DELETE FROM order_placed WHERE id BETWEEN 21 AND 460").await;
        orders.database.run(&format!("UPDATE order_placed SET payload = {payload}")).await;
        let said = orders.flush();
        let text = orders.witness.text();
        assert_eq!((said.status, said.stdout.as_str()), (0, "sent 60, deferred 0, buried 0\n"), "{text}");
        assert_eq!((orders.witness.counts().len(), orders.repeated()), (60, 0), "{text}");
        assert!(!text.contains("batch failed"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_in_the_middle_charges_and_repeats_nothing() {
    for (outage, status) in [("unavailable", 69), ("misconfigured", 78)] {
        let orders = Orders::with(500, &format!("CASE id WHEN 250 THEN '{outage}' ELSE 'sent' END"), "").await;
        let said = orders.flush();
        assert_eq!((said.status, said.stdout.as_str()), (status, "sent 249, deferred 0, buried 0\n"));
        let left: Vec<_> = (250..=500).map(|id| format!("{id} 0")).collect();
        assert_eq!(orders.left().await, left);
        assert!(orders.witness.text().contains(&format!("told to be {outage}")), "{}", orders.witness.text());
        orders.database.run("UPDATE order_placed SET payload = 'sent'").await;
        assert_eq!(orders.flush().status, 0);
        assert_eq!((orders.witness.all_sent(500), orders.left().await.len()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_row_holds_back_its_own_order_key_alone() {
    for failing in ["retry:3600000", "trap"] {
        let payload = format!("CASE id WHEN 10 THEN '{failing}' ELSE 'sent' END");
        let orders = Orders::with(70, &payload, "order_by = ['id']\norder_key = ['customer']").await;
        assert_eq!(orders.flush().status, 1, "{}", orders.witness.text());
        // Seven customers take turns.
        let held: Vec<_> = (10..=70).step_by(7).map(|id| format!("{id} {}", u32::from(id == 10))).collect();
        assert_eq!(orders.left().await, held);
        orders.database.run("UPDATE order_placed SET payload = 'sent'").await;
        assert_eq!(orders.flush_again().await.status, 0, "{}", orders.witness.text());
        let row = |row: &String| row.trim_start_matches("OrderPlaced:").parse().unwrap();
        let sent: Vec<usize> = orders.witness.order().iter().map(row).collect();
        for customer in 0..7 {
            let of_customer = |id: &usize| id % 7 == customer;
            let (sent, all): (Vec<_>, Vec<_>) =
                (sent.iter().copied().filter(of_customer).collect(), (1..=70).filter(of_customer).collect());
            check_order(customer, &sent, &all, Promise::NoGap);
        }
        assert_eq!(orders.left().await.len(), 0);
    }
}

/// A plugin that takes one row at a time needs memory for one row, not for a batch.
#[tokio::test(flavor = "multi_thread")]
async fn large_rows_share_calls_as_far_as_memory_goes() {
    let orders = Orders::with(60, "'sent'", "memory = '8MiB'").await;
    orders.database.run("UPDATE order_placed SET customer = printf('%.500000c', 'x')").await;
    let said = orders.flush();
    let text = orders.witness.text();
    assert_eq!((said.status, said.stdout.as_str()), (0, "sent 60, deferred 0, buried 0\n"), "{text}");
    assert!(!text.contains("batch failed"), "{text}");
}
