use std::time::Duration;

/// The radio's symbol rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phy {
    /// LE 1M.
    OneMegabit,
    /// LE 2M.
    TwoMegabit,
}

impl Phy {
    /// How long a packet with this much payload is on the air: preamble, access address, header and CRC are 10 bytes
    /// on LE 1M, one preamble byte more on LE 2M. Link-layer encryption is off.
    ///
    /// Spec: Core 5.4, volume 6 part B, section 2.1
    #[must_use]
    pub fn air_time(self, payload: usize) -> Duration {
        let payload = u64::try_from(payload).unwrap_or(u64::MAX);
        match self {
            Self::OneMegabit => Duration::from_micros(8 * (10 + payload)),
            Self::TwoMegabit => Duration::from_micros(4 * (11 + payload)),
        }
    }
}

/// Payload of one link-layer packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataLength {
    /// What every controller has.
    Short,
    /// With the data length extension.
    Extended,
}

impl DataLength {
    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Short => 27,
            Self::Extended => 251,
        }
    }
}

/// What two controllers and their systems have agreed on, and how good the radio is.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// From one connection event to the next.
    pub interval: Duration,
    /// A side that hears nothing for this long gives the connection up.
    pub supervision: Duration,
    /// Symbol rate.
    pub phy: Phy,
    /// Packets each way in one connection event, if they fit into the interval.
    pub packets_per_event: usize,
    /// Payload of a packet.
    pub data_length: DataLength,
    /// ATT MTU.
    pub mtu: usize,
    /// Bearers of ATT: 1 is plain ATT, more are EATT.
    pub bearers: usize,
    /// How much later than another bearer's a system may hand over a PDU.
    pub jitter: Duration,
    /// Packets in a thousand that are damaged on the air.
    pub loss_per_mille: u16,
}

impl Default for Parameters {
    /// A computer and a phone of today, with the interval and the supervision time-out that we advise.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(15),
            supervision: Duration::from_secs(2),
            phy: Phy::OneMegabit,
            packets_per_event: 6,
            data_length: DataLength::Extended,
            mtu: 517,
            bearers: 1,
            jitter: Duration::ZERO,
            loss_per_mille: 0,
        }
    }
}

impl Parameters {
    /// The same with another interval.
    #[must_use]
    pub fn with_interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// As systems with EATT do: three bearers that overtake one another by up to two intervals.
    #[must_use]
    pub fn reordering(self) -> Self {
        Self { bearers: 3, jitter: 2 * self.interval, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_take_as_long_as_the_specification_says() {
        // Core 5.4, volume 6 part B, 2.4.2.21: connMaxTxTime of 27 bytes is 328 us and of 251 bytes 2120 us, each with a
        // MIC of 4 bytes.
        assert_eq!(Phy::OneMegabit.air_time(27 + 4), Duration::from_micros(328));
        assert_eq!(Phy::OneMegabit.air_time(251 + 4), Duration::from_micros(2120));
        assert_eq!(Phy::TwoMegabit.air_time(251 + 4), Duration::from_micros(1064));
    }
}
