import { TranslationBundle } from '@jupyterlab/translation';

/** A span of time in at most two units: "1 h 5 min". */
export function span(seconds: number, trans: TranslationBundle): string {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  const hours = Math.floor(minutes / 60);
  if (hours >= 24) {
    return trans.__('%1 d %2 h', Math.floor(hours / 24), hours % 24);
  }
  if (hours) {
    return trans.__('%1 h %2 min', hours, minutes % 60);
  }
  return minutes
    ? trans.__('%1 min', minutes)
    : trans.__('%1 s', whole);
}

/** What is left, to the second in the last ten minutes: "9:05". */
export function countdown(seconds: number, trans: TranslationBundle): string {
  const whole = Math.max(0, Math.ceil(seconds));
  if (whole >= 600) {
    return span(whole, trans);
  }
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

/** How long ago something was: "3 h 2 min ago"; empty where it is not known. */
export function ago(iso: string, trans: TranslationBundle): string {
  const then = Date.parse(iso);
  if (Number.isNaN(then)) {
    return '';
  }
  const seconds = (Date.now() - then) / 1000;
  return seconds < 60
    ? trans.__('just now')
    : trans.__('%1 ago', span(seconds, trans));
}

export function dollars(amount: number): string {
  return `$${amount.toFixed(2)}`;
}

/** An estimate: "about $0.36". */
export function about(amount: number, trans: TranslationBundle): string {
  return amount > 0 && amount < 0.01
    ? trans.__('under $0.01')
    : trans.__('about %1', dollars(amount));
}

export function roundTrip(milliseconds: number): string {
  return milliseconds < 10
    ? `${milliseconds.toFixed(1)} ms`
    : `${Math.round(milliseconds)} ms`;
}
