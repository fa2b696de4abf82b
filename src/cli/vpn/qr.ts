/** QR codes for a terminal. */
import { renderUnicodeCompact } from 'uqr'

/** Two modules a character; light modules are drawn, as on the dark ground that most terminals have. */
export const renderQr = (text: string): string => renderUnicodeCompact(text, { border: 2, ecc: 'L' })
