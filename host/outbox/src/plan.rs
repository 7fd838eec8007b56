//! Whether a view can be read from its head, a batch at a time, or is read as a whole for each.
//!
//! Judges by the database's own plan, and changes nothing. Next: `examine`, which asks.

use super::active::RecordedClaims;
use super::database::Purpose;
use super::identity::Identity;
use super::signal_table::{Shape, SignalTable};
use super::table::Table;
use super::window::Window;
use super::{Error, Fault, Outbox, Source};

impl Outbox {
    /// Finds a view of which each claim reads everything.
    pub(super) async fn unfit_view(&self, source: &Source, table: Table) -> Result<Option<Fault>, Error> {
        let Some(view) = &source.view else { return Ok(None) };
        let dialect = self.database.dialect();
        let identity = Identity::new(&source.signal, "", &table, dialect.numbers_versions());
        let lane = SignalTable::new(self.database.clone(), &source.signal, table, identity, Shape::of(dialect, source));
        let mut session = self.database.session(None);
        session.begin(Purpose::Write).await?;
        if let Some(settings) = dialect.plans_without_sorting() {
            session.rows(self.statement(settings, &[])).await?;
        }
        let mut sql = lane.statement(dialect.explain(), &[]);
        sql.push(&lane.texts.columns);
        // With the first row alone wanted, nothing is sorted that need not be.
        lane.due_within(&mut sql, &Window { limit: 1, ..Window::default() }, &RecordedClaims::default());
        let plan = session.rows(sql).await?;
        session.rollback().await?;
        Ok(dialect.collects(&plan).map(|step| {
            Fault::Doubtful(format!(
                "signal type \"{}\": every claim reads all of view \"{view}\" before its first row (the plan says: {step}); leave \
                 out what has to see all rows, such as DISTINCT, GROUP BY, window functions and volatile functions, and create \
                 an index for `order_by`",
                source.signal
            ))
        }))
    }
}
