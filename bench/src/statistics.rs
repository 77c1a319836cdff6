//! Medians and other quantiles.

/// Returns the value that `part` (0 to 1) of the samples do not exceed; 0 where there are none.
pub(crate) fn quantile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a few thousand samples"
    )]
    let at = ((samples.len() as f64 - 1.0) * part).round().max(0.0) as usize;
    samples.get(at).copied().unwrap_or(0.0)
}

/// Returns the median.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.5)
}
