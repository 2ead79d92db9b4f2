//! Our side of the measurement.
fn main() {
    let _ = loev_sql::new_session(2, None);
}
