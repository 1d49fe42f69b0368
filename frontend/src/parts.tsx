import { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import { IFailure } from './api';

/** What every view of the dialog has. */
export interface IViewProps {
  trans: TranslationBundle;
}

/** An error as it was written, with the page that helps. */
export function Failure(
  props: IViewProps & { failure: IFailure }
): JSX.Element {
  const { failure, trans } = props;
  return (
    <div className="ck-failure" role="alert">
      <p>{failure.message}</p>
      {/^https?:/.test(failure.url) && (
        <a href={failure.url} target="_blank" rel="noopener noreferrer">
          {trans.__('Open the page')}
        </a>
      )}
    </div>
  );
}

/** Something that takes a while. */
export function Busy(props: { text: string }): JSX.Element {
  return (
    <p className="ck-busy" role="status">
      <span className="ck-spinner" aria-hidden="true" />
      {props.text}
    </p>
  );
}

/** One line of choices at the dialog's foot; the last button is the one that Enter presses. */
export function Footer(props: { children: React.ReactNode }): JSX.Element {
  return <div className="ck-footer">{props.children}</div>;
}

export function Button(props: {
  label: string;
  onClick?: () => void;
  accept?: boolean;
  warn?: boolean;
  disabled?: boolean;
}): JSX.Element {
  const kind = props.accept
    ? 'jp-mod-accept'
    : props.warn
      ? 'jp-mod-warn'
      : 'jp-mod-reject';
  return (
    <button
      className={`jp-Dialog-button jp-mod-styled ${kind}`}
      type={props.onClick ? 'button' : 'submit'}
      onClick={props.onClick}
      disabled={props.disabled}
    >
      <span className="jp-Dialog-buttonLabel">{props.label}</span>
    </button>
  );
}

export interface IOption {
  value: string;
  title: React.ReactNode;
  aside?: React.ReactNode;
  detail?: React.ReactNode;
}

/** Radio buttons with two lines each: arrow keys move, and the whole row can be clicked. */
export function Options(props: {
  label: string;
  name: string;
  options: IOption[];
  value: string;
  onChange: (value: string) => void;
  onChosen?: (value: string) => void;
  focus?: boolean;
}): JSX.Element {
  const { options, value } = props;
  return (
    <div className="ck-options" role="radiogroup" aria-label={props.label}>
      {options.map(option => (
        <label
          key={option.value}
          className={`ck-option ${option.value === value ? 'ck-mod-chosen' : ''}`}
          onDoubleClick={() => props.onChosen?.(option.value)}
        >
          <input
            type="radio"
            name={props.name}
            value={option.value}
            checked={option.value === value}
            autoFocus={props.focus && option.value === value}
            onChange={() => props.onChange(option.value)}
          />
          <span className="ck-option-text">
            <span className="ck-option-head">
              <span className="ck-option-title">{option.title}</span>
              <span className="ck-option-aside">{option.aside}</span>
            </span>
            {option.detail && (
              <span className="ck-option-detail">{option.detail}</span>
            )}
          </span>
        </label>
      ))}
    </div>
  );
}

/** A label above its control; the hint is read out with it. */
export function Field(props: {
  id: string;
  label: string;
  hint?: React.ReactNode;
  children: React.ReactNode;
}): JSX.Element {
  return (
    <div className="ck-field">
      <label htmlFor={props.id}>{props.label}</label>
      {props.children}
      {props.hint && (
        <span className="ck-hint" id={`${props.id}-hint`}>
          {props.hint}
        </span>
      )}
    </div>
  );
}

/** Draw anew each second, so that times go on. */
export function useSeconds(): number {
  const [now, setNow] = React.useState(Date.now);
  React.useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), 1000);
    return () => window.clearInterval(timer);
  }, []);
  return now / 1000;
}
