//! Signals that are read from a view, take rows of other tables along, or are marked instead of deleted.

mod cases {
    use signalbus::outbox::{Deletions, Settled, Source};
    use signalbus::settlement::Settlement;

    use crate::harness::database::Database;
    use crate::harness::lane::{Relay, claim, deferred, drain, keys, nothing, ordered, sent, settle};

    /// Shipments with their lines, of which a view shows those that are ready: with the name of their customer, their
    /// lines, a rank, and the time at which they are looked at.
    async fn shipments(database: &Database) -> Source {
        let text = database.either("TEXT", "text", "VARCHAR(40)");
        let lines = database.either(
            "(SELECT json_group_array(sku) FROM (SELECT sku FROM line WHERE line.shipment_id = s.id ORDER BY line.id))",
            "(SELECT json_agg(sku ORDER BY line.id) FROM line WHERE line.shipment_id = s.id)",
            "(SELECT JSON_ARRAYAGG(sku ORDER BY line.id) FROM line WHERE line.shipment_id = s.id)",
        );
        let now = database.either("strftime('%f')", "clock_timestamp()", "SYSDATE(6)");
        database
            .run(&format!(
                "CREATE TABLE customer (id INT PRIMARY KEY, name {text}); INSERT INTO customer VALUES (1, 'ann'), (2, 'bob'); \
                 CREATE TABLE shipment (id INT PRIMARY KEY, customer_id INT, state {text}, urgency INT, sent_at {text}); \
                 INSERT INTO shipment VALUES (1, 1, 'ready', 3, NULL), (2, 2, 'draft', 9, NULL), (3, 2, 'ready', 7, NULL); \
                 CREATE TABLE line (id INT PRIMARY KEY, shipment_id INT, sku {text}, FOREIGN KEY (shipment_id) REFERENCES shipment (id)); \
                 INSERT INTO line VALUES (10, 1, 'pen'), (11, 1, 'ink'), (12, 2, 'cup'), (13, 3, 'hat'); \
                 CREATE VIEW ready AS SELECT s.id, s.state, c.name AS customer, {lines} AS skus, -s.urgency AS place, {now} AS seen \
                 FROM shipment s JOIN customer c ON c.id = s.customer_id WHERE s.state = 'ready' AND s.sent_at IS NULL"
            ))
            .await;
        Source { view: Some("ready".into()), also_delete: vec!["line.shipment_id".into()], ..ordered("shipment", &[], &[]) }
    }

    async fn settled(worker: &mut signalbus::outbox::Worker<'_>, batch: &signalbus::outbox::Batch) -> Deletions {
        match worker.settle(batch, &sent(batch)).await.unwrap() {
            Settled::Done(deletions) => deletions,
            Settled::Fenced => panic!("the claim was lost"),
        }
    }

    pub async fn what_a_view_shows_is_sent_and_its_children_go_along(database: Database) {
        let source = shipments(&database).await;
        let relay = Relay::open(&database, &source).await;
        assert_eq!(relay.outbox.pending(&source).await.unwrap(), 2);
        let mut worker = relay.worker();
        let first = claim(&mut worker, 9).await;
        assert_eq!(keys(&first), ["1", "3"]);
        let names: Vec<&str> = relay.lane.signal_type().columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["id", "state", "customer", "skus", "place", "seen"]);
        let values = format!("{:?}", first.signals[0].values);
        assert!(values.contains("\"ann\"") && values.contains("pen") && values.contains("ink"), "{values}");
        // The time at which it is looked at is no part of a row's version.
        let settlement =
            Settlement { defer: vec![deferred(&first, 0, std::time::Duration::ZERO)], delete: vec![1], ..Settlement::default() };
        assert_eq!(settle(&mut worker, &first, &settlement).await, 1);
        assert_eq!(database.lines("SELECT sku FROM line ORDER BY id").await, ["pen", "ink", "cup"]);
        database.make_due().await;
        let again = claim(&mut worker, 9).await;
        assert_eq!((keys(&again), &again.signals[0].id), (vec!["1".into()], &first.signals[0].id));
        assert_eq!(again.signals[0].attempt, 2);
        assert_eq!(settled(&mut worker, &again).await.deleted, 1);
        nothing(&mut worker).await;
        assert_eq!(database.lines("SELECT sku FROM line").await, ["cup"]);
        assert_eq!((database.count("shipment").await, database.count("signalbus_hold").await), (1, 0));
    }

    /// Whatever index they have, and none of them a primary key; a child of another row may be locked.
    pub async fn children_need_no_key_of_their_own(database: Database) {
        let source = shipments(&database).await;
        database.run("CREATE TABLE note (shipment_id INT, body INT); INSERT INTO note VALUES (1, 1), (1, 2), (2, 3)").await;
        let also_delete = vec!["line.shipment_id".into(), "note.shipment_id".into()];
        let relay = Relay::open(&database, &Source { also_delete, ..source }).await;
        assert_eq!(drain(&mut relay.worker(), 9).await, ["1", "3"]);
        assert_eq!(database.lines("SELECT body FROM note").await, ["3"]);
    }

    /// `check` names a view that is read as a whole for each batch, and no other.
    pub async fn a_view_that_is_read_as_a_whole_is_named(database: Database) {
        shipments(&database).await;
        let series = database.series(1500);
        database
            .run(&format!(
                "INSERT INTO shipment SELECT 1000 + i, 1 + i % 2, 'ready', i % 50, NULL FROM {series}; \
                 CREATE VIEW named AS SELECT s.id, c.name, -s.urgency AS place, \
                 (SELECT count(*) FROM line WHERE line.shipment_id = s.id) AS skus \
                 FROM shipment s JOIN customer c ON c.id = s.customer_id WHERE s.state = 'ready'; \
                 CREATE VIEW one_each AS SELECT DISTINCT urgency, id, customer_id FROM shipment; \
                 CREATE VIEW ranked AS SELECT id, row_number() OVER (ORDER BY urgency) AS place FROM shipment; \
                 CREATE VIEW busy AS SELECT max(id) AS id, count(*) AS number FROM shipment GROUP BY urgency, state"
            ))
            .await;
        let outbox = signalbus::outbox::Outbox::open(&database.url, 2).unwrap();
        let faults = async |view: &str, order_by: &[&str]| {
            let source = Source { view: Some(view.into()), ..ordered("shipment", order_by, &[]) };
            let faults = outbox.faults(&source).await.unwrap();
            faults.iter().map(|fault| format!("{fault:?}")).filter(|fault| fault.contains("reads all of view")).count()
        };
        for (view, found) in [("named", 0), ("ranked", 1), ("busy", 1)] {
            assert_eq!(faults(view, &[]).await, found, "{view}");
        }
        if database.system != crate::harness::database::System::Postgres {
            assert_eq!(faults("one_each", &[]).await, 1);
        } else {
            // Its newer versions find what is distinct in the order of the key. An order that is computed needs an index.
            assert_eq!(faults("named", &["place", "id"]).await, 1);
            database.run("CREATE INDEX by_place ON shipment ((-urgency), id)").await;
            assert_eq!(faults("named", &["place", "id"]).await, 0);
        }
    }

    /// A row that leaves its view while it is sent stays, and so does what belongs to it.
    pub async fn what_changes_meanwhile_stays_with_its_children(database: Database) {
        let source = shipments(&database).await;
        let relay = Relay::open(&database, &source).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 9).await;
        database.run("UPDATE shipment SET state = 'draft' WHERE id = 1").await;
        assert_eq!(settled(&mut worker, &batch).await.deleted, 1);
        assert_eq!(database.lines("SELECT sku FROM line ORDER BY id").await, ["pen", "ink", "cup"]);
        nothing(&mut worker).await;
        database.run("UPDATE shipment SET state = 'ready' WHERE id = 1").await;
        assert_eq!(drain(&mut worker, 9).await, ["1"]);
        assert_eq!(database.lines("SELECT sku FROM line").await, ["cup"]);
    }

    pub async fn what_cannot_be_deleted_keeps_its_children(database: Database) {
        let source = shipments(&database).await;
        database
            .run("CREATE TABLE bill (shipment_id INT, FOREIGN KEY (shipment_id) REFERENCES shipment (id)); INSERT INTO bill VALUES (3)")
            .await;
        let relay = Relay::open(&database, &source).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 9).await;
        let done = settled(&mut worker, &batch).await;
        assert_eq!((done.deleted, done.refused), (1, 1), "{done:?}");
        assert_eq!(database.lines("SELECT sku FROM line ORDER BY id").await, ["cup", "hat"]);
        nothing(&mut worker).await;
        database.run("DELETE FROM bill; UPDATE signalbus_hold SET due_at = 0").await;
        nothing(&mut worker).await;
        assert_eq!(database.lines("SELECT sku FROM line").await, ["cup"]);
    }

    /// The row stays, and its view leaves it out.
    pub async fn a_row_may_be_marked_instead_of_deleted(database: Database) {
        let source =
            Source { also_delete: Vec::new(), on_sent: vec![("sent_at".into(), "'today'".into())], ..shipments(&database).await };
        let relay = Relay::open(&database, &source).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 9).await;
        let (first, other) = (batch.signals[0].id.clone(), batch.signals[1].id.clone());
        assert_eq!(settled(&mut worker, &batch).await.deleted, 2);
        nothing(&mut worker).await;
        assert_eq!(database.lines("SELECT sent_at FROM shipment ORDER BY id").await, ["today", "NULL", "today"]);
        assert_eq!(relay.outbox.pending(&source).await.unwrap(), 0);
        // To send it once more, the application takes the mark away.
        database.run("UPDATE shipment SET sent_at = NULL WHERE id = 1").await;
        let again = claim(&mut worker, 9).await;
        assert_eq!(keys(&again), ["1"]);
        assert!(again.signals[0].id != first && again.signals[0].id != other);
        database.run("UPDATE shipment SET state = 'ready to go' WHERE id = 1").await;
        settled(&mut worker, &again).await;
        assert_eq!(database.lines("SELECT sent_at FROM shipment WHERE id = 1").await, ["NULL"], "it was changed meanwhile");
    }

    /// A mark that the view does not care about, and a join that shows rows twice.
    pub async fn a_faulty_view_sends_nothing_twice(database: Database) {
        let marked =
            Source { also_delete: Vec::new(), on_sent: vec![("urgency".into(), "1".into())], ..shipments(&database).await };
        let relay = Relay::open(&database, &marked).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 9).await;
        let done = settled(&mut worker, &batch).await;
        assert_eq!((done.deleted, done.refused), (0, 2), "{done:?}");
        assert!(done.reason.unwrap().contains("its view still shows it"));
        nothing(&mut worker).await;
        database.run("DELETE FROM signalbus_hold; CREATE VIEW twice AS SELECT s.id, s.state FROM shipment s JOIN line ON line.shipment_id = s.id").await;
        let relay = Relay::open(&database, &Source { view: Some("twice".into()), on_sent: Vec::new(), ..marked }).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 9).await;
        assert_eq!(keys(&batch), ["1", "2", "3"]);
        assert_eq!(batch.broken, [(0, "the view shows this row more than once".to_owned())]);
    }

    pub async fn a_view_may_compute_the_order(database: Database) {
        let source = shipments(&database).await;
        database.run("UPDATE shipment SET state = 'ready'").await;
        let relay = Relay::open(&database, &Source { order_by: vec!["place".into()], ..source }).await;
        assert_eq!(drain(&mut relay.worker(), 2).await, ["2", "3", "1"]);
        assert_eq!(database.count("line").await, 0);
    }

    pub async fn views_and_children_are_checked(database: Database) {
        let source = shipments(&database).await;
        database.run("CREATE VIEW keyless AS SELECT state FROM shipment").await;
        let relay = Relay::open(&database, &source).await;
        let faults = async |source: Source| format!("{:?}", relay.outbox.faults(&source).await.unwrap());
        let told = faults(Source { view: Some("keyless".into()), ..source.clone() }).await;
        assert!(told.contains("does not show \\\"id\\\", which is part of the primary key"), "{told}");
        let told = faults(Source { view: Some("nowhere".into()), ..source.clone() }).await;
        assert!(told.contains("view \\\"nowhere\\\" does not exist"), "{told}");
        let told = faults(Source { also_delete: vec!["line.shipment".into()], ..source.clone() }).await;
        assert!(told.contains("column \\\"shipment\\\", which table \\\"line\\\" does not have; did you mean"), "{told}");
        let told = faults(Source { also_delete: vec!["lines.shipment_id".into()], ..source.clone() }).await;
        assert!(told.contains("table \\\"lines\\\", which does not exist"), "{told}");
        let told = faults(Source { also_delete: vec!["shipment.id".into()], ..source.clone() }).await;
        assert!(told.contains("names the signals' own table"), "{told}");
        let told = faults(Source { order_by: vec!["nothing".into()], ..source.clone() }).await;
        assert!(told.contains("which view \\\"ready\\\" does not have"), "{told}");
        let told = faults(Source { also_delete: vec!["line".into()], ..source.clone() }).await;
        assert!(told.contains("write \\\"TABLE.COLUMN\\\""), "{told}");
        let told = faults(Source { also_delete: vec![], on_sent: vec![("sent".into(), "1".into())], ..source }).await;
        assert!(told.contains("cannot be removed") && told.contains("sent"), "{told}");
    }
}

crate::on_each_version!(
    what_a_view_shows_is_sent_and_its_children_go_along,
    children_need_no_key_of_their_own,
    what_changes_meanwhile_stays_with_its_children,
    what_cannot_be_deleted_keeps_its_children,
    a_row_may_be_marked_instead_of_deleted,
    a_faulty_view_sends_nothing_twice,
    a_view_may_compute_the_order,
    views_and_children_are_checked,
    a_view_that_is_read_as_a_whole_is_named,
);
