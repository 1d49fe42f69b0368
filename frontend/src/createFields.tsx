import React from 'react';

import { IBounds, IChoices, ICreation, IMachine, IPrices } from './api';
import { dollars } from './format';
import { Field, IViewProps, Options } from './parts';

/** Machine types with their price. */
export function MachineOptions(
  props: IViewProps & {
    machines: IMachine[];
    prices: IPrices;
    value: string;
    onChange: (name: string) => void;
  }
): JSX.Element | null {
  const { trans, machines } = props;
  if (machines.length === 0) {
    return null;
  }
  return (
    <fieldset className="ck-fieldset">
      <legend>{trans.__('Machine')}</legend>
      <Options
        label={trans.__('Machine')}
        name="ck-machine"
        value={props.value}
        onChange={props.onChange}
        options={machines.map(machine => ({
          value: machine.name,
          title: machine.title,
          aside:
            machine.dollars_per_hour === null
              ? ''
              : trans.__('%1 an hour', dollars(machine.dollars_per_hour)),
          detail:
            machine.prebuild === 'ready'
              ? trans.__('A prebuild is ready: it starts faster')
              : undefined
        }))}
      />
      <p className="ck-hint">
        <a href={props.prices.source} target="_blank" rel="noopener noreferrer">
          {trans.__('Published prices of %1', props.prices.date)}
        </a>{' '}
        {trans.__('while it runs; a plan may include some hours.')}
      </p>
    </fieldset>
  );
}

const DAY = 24 * 60;

/** What is seldom changed. */
export function MoreFields(
  props: IViewProps & {
    choices: IChoices;
    wanted: ICreation;
    change: (part: Partial<ICreation>) => void;
  }
): JSX.Element {
  const { trans, choices, wanted, change } = props;
  const { retention_minutes } = choices;
  const days = {
    lowest: Math.floor(retention_minutes.lowest / DAY),
    highest: Math.floor(retention_minutes.highest / DAY),
    default:
      retention_minutes.default === null
        ? null
        : Math.floor(retention_minutes.default / DAY)
  };
  const retention = wanted.retention_period_minutes;
  return (
    <details className="ck-more">
      <summary>{trans.__('More')}</summary>
      <div className="ck-columns">
        <Field id="ck-name" label={trans.__('Name')}>
          <input
            id="ck-name"
            className="jp-mod-styled"
            maxLength={48}
            placeholder={trans.__('chosen by GitHub')}
            value={wanted.display_name ?? ''}
            onChange={event => change({ display_name: event.target.value })}
          />
        </Field>
        {choices.locations.length > 0 && (
          <Field id="ck-location" label={trans.__('Region')}>
            <select
              id="ck-location"
              className="jp-mod-styled"
              value={wanted.location ?? ''}
              onChange={event => change({ location: event.target.value })}
            >
              <option value="">{trans.__('chosen by GitHub')}</option>
              {choices.locations.map(location => (
                <option key={location}>{location}</option>
              ))}
            </select>
          </Field>
        )}
        <Number
          id="ck-idle"
          label={trans.__('Stops after idle minutes')}
          bounds={choices.idle_timeout_minutes}
          value={wanted.idle_timeout_minutes}
          onChange={idle_timeout_minutes => change({ idle_timeout_minutes })}
        />
        <Number
          id="ck-retention"
          label={trans.__('Is deleted after stopped days')}
          bounds={days}
          value={typeof retention === 'number' ? retention / DAY : null}
          onChange={value =>
            change({
              retention_period_minutes: value === null ? null : value * DAY
            })
          }
        />
      </div>
    </details>
  );
}

function Number(props: {
  id: string;
  label: string;
  bounds: IBounds;
  value: number | null | undefined;
  onChange: (value: number | null) => void;
}): JSX.Element {
  const { bounds, value } = props;
  return (
    <Field
      id={props.id}
      label={props.label}
      hint={`${bounds.lowest} – ${bounds.highest}`}
    >
      <input
        id={props.id}
        className="jp-mod-styled"
        type="number"
        aria-describedby={`${props.id}-hint`}
        min={bounds.lowest}
        max={bounds.highest}
        placeholder={bounds.default === null ? '' : String(bounds.default)}
        value={value ?? ''}
        onChange={event => {
          const typed = event.target.valueAsNumber;
          props.onChange(isNaN(typed) ? null : Math.round(typed));
        }}
      />
    </Field>
  );
}
