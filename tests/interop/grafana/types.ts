// What a dashboard must be for Grafana, with JSON's plain strings and numbers in the place of its enums.
import type { Dashboard, DataSourceRef, RowPanel } from "@grafana/schema";
import type * as raw from "@grafana/schema/dist/esm/raw/dashboard/x/dashboard_types.gen.d.ts";
import type * as bargauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen.d.ts";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen.d.ts";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts";
import type * as states from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen.d.ts";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts";
import type * as text from "@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen.d.ts";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts";

type Plain<T> = T extends string ? `${T}`
    : T extends number ? (number extends T ? number : `${T}` extends `${infer N extends number}` ? N : T)
    : T extends (infer U)[] ? Plain<U>[]
    : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

// Prometheus' queries and annotations have no types in this package.
interface Query {
    refId: string; datasource: DataSourceRef; expr: string; editorMode: "code" | "builder"; legendFormat: string;
    instant: boolean; range: boolean; exemplar?: boolean; format?: "time_series" | "table" | "heatmap";
}
interface Annotation extends Omit<raw.AnnotationQuery, "target"> {
    target: { refId: string; expr: string }; titleFormat: string; textFormat: string; tagKeys: string; step: string; useValueForTime: boolean;
}
interface Drawn<Type, Options, Custom> extends Omit<raw.Panel, "type" | "options" | "targets" | "fieldConfig"> {
    type: Type; options: Options; targets: Query[];
    fieldConfig: { defaults: Omit<raw.FieldConfig, "custom"> & { custom?: Custom }; overrides: raw.FieldConfigSource["overrides"] };
}
interface Text extends Omit<raw.Panel, "type" | "options" | "targets"> { type: "text"; options: text.Options }

type Panel = Drawn<"stat", stat.Options, never> | Drawn<"timeseries", timeseries.Options, timeseries.FieldConfig>
    | Drawn<"bargauge", bargauge.Options, never> | Drawn<"table", table.Options, Partial<table.FieldConfig>>
    | Drawn<"heatmap", heatmap.Options, never> | Drawn<"state-timeline", states.Options, states.FieldConfig> | Text;

export type Made = Plain<Omit<Dashboard, "panels" | "annotations"> & { panels: (Panel | RowPanel)[]; annotations: { list: Annotation[] } }>;
